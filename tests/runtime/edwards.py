"""The group of Curve25519 in its twisted Edwards form, by the textbook: RFC 8032, 5.1."""

from __future__ import annotations

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493

Point = tuple[int, int]
IDENTITY: Point = (0, 1)
BASE: Point = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    46316835694926478169428394003475163141307993866256225615783033603165251855960,
)


def on_curve(point: Point) -> bool:
    x, y = point
    return (-x * x + y * y - 1 - D * x * x * y * y) % P == 0


def plus(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2 % P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P,
    )


def times(factor: int, point: Point) -> Point:
    result = IDENTITY
    while factor:
        if factor & 1:
            result = plus(result, point)
        point = plus(point, point)
        factor >>= 1
    return result


def with_y(y: int) -> list[Point]:
    """The points with this y: none, one or two."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    for candidate in (root, root * pow(2, (P - 1) // 4, P) % P):
        if candidate * candidate % P == square:
            return sorted({(candidate, y), (-candidate % P, y)})
    return []


def small_order_points() -> set[Point]:
    """The subgroup of order 8: what is left of any point when its large part is taken away.

    The group is cyclic of order 8 times ORDER, so a point of order 8 generates all of them.
    """
    y = 2
    while True:
        for point in with_y(y):
            assert on_curve(point)
            rest = times(ORDER, point)
            multiples = {times(n, rest) for n in range(8)}
            if len(multiples) == 8:
                return multiples
        y += 1

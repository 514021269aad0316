"""The allocation rules: what each rank is paid before ties are looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from evalpool_benchmark.allocation.rounding import largest_remainder

Merits = Sequence[Fraction]
"""The eligible entries' scores as exact fractions, best first."""

Rule = Callable[[int, Merits], tuple[int, ...]]
"""Funds and merits to payouts, in the order of the merits."""

PAID_RANKS = 10
"""Ranks that `ArithmeticDecrease` and `TopHeavy` pay at most."""


def arithmetic_decrease(funds: int, merits: Merits) -> tuple[int, ...]:
    """Pay the first ten ranks in equal steps down.

    With m = min(n, 10) entries paid, rank r gets (m + 1 - r) / (m (m + 1) / 2) of the funds. This
    is a rank-order tournament with a linear payout structure.
    """
    paid = min(len(merits), PAID_RANKS)
    return _first(funds, range(paid, 0, -1), len(merits))


def winner_takes_all(funds: int, merits: Merits) -> tuple[int, ...]:
    """Pay everything to the first rank."""
    return _first(funds, range(1, min(len(merits), 1) + 1), len(merits))


def proportional(funds: int, merits: Merits) -> tuple[int, ...]:
    """Pay every entry in proportion to its score; equally where every score is zero."""
    if not any(merits):
        return equal(funds, merits)
    return largest_remainder(funds, merits)


def equal(funds: int, merits: Merits) -> tuple[int, ...]:
    """Pay every entry the same, to within one unit; the odd units go to the first ranks."""
    return largest_remainder(funds, [1] * len(merits))


def top_heavy(funds: int, merits: Merits) -> tuple[int, ...]:
    """Pay the first ten ranks, each twice what the next one gets: a geometric structure."""
    paid = min(len(merits), PAID_RANKS)
    return _first(funds, [2**place for place in reversed(range(paid))], len(merits))


RULES: Mapping[str, Rule] = {
    "ArithmeticDecrease": arithmetic_decrease,
    "WinnerTakesAll": winner_takes_all,
    "Proportional": proportional,
    "Equal": equal,
    "TopHeavy": top_heavy,
}
"""The rules by the names that the tag `X-Allocation` gives them."""


def _first(funds: int, weights: Sequence[int], entries: int) -> tuple[int, ...]:
    """Pay the first ranks by weight and the others nothing."""
    return largest_remainder(funds, weights) + (0,) * (entries - len(weights))

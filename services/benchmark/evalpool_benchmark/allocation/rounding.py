"""Whole units from exact shares, by the largest-remainder (Hamilton) method."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def largest_remainder(funds: int, weights: Sequence[int | Fraction]) -> tuple[int, ...]:
    """Divide funds in proportion to weights, in whole units that sum to the funds exactly.

    Each place first gets its share rounded down. The units left over, fewer than there are places,
    go one each to the largest remainders, the earlier place first among equal ones. Weights that do
    not rise from place to place therefore give payouts that do not rise either.

    Args:
        funds: Units to divide, 0 or more.
        weights: One weight a place, none negative, not all zero. No weights, no payouts.

    Returns:
        Units for each place.

    Raises:
        ValueError: A weight is negative, or all are zero.
    """
    if not weights:
        return ()
    total = sum(weights)
    if total <= 0 or min(weights) < 0:
        raise ValueError("weights must not be negative, and not all zero")
    quotas = [Fraction(funds * weight) / total for weight in weights]
    units = [quota.numerator // quota.denominator for quota in quotas]
    # sorted is stable, so equal remainders keep the order of the places.
    by_remainder = sorted(range(len(units)), key=lambda place: units[place] - quotas[place])
    for place in by_remainder[: funds - sum(units)]:
        units[place] += 1
    return tuple(units)

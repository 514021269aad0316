"""The tie rules: what entries with exactly the same score do with their ranks' payouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby

from evalpool_benchmark.allocation.rules import Merits

TieRule = Callable[[tuple[int, ...], Merits], tuple[int, ...]]
"""Payouts by place, and merits, to payouts by place."""


def earliest(payouts: tuple[int, ...], merits: Merits) -> tuple[int, ...]:
    """Leave each place its payout: among equals the earlier join stands first."""
    return payouts


def split(payouts: tuple[int, ...], merits: Merits) -> tuple[int, ...]:
    """Pool the payouts of tied places and divide them equally.

    Within a tie payouts differ by one unit at most; the odd units go to the earlier joins.
    """
    divided: list[int] = []
    for _, tie in groupby(range(len(merits)), key=lambda place: merits[place]):
        places = list(tie)
        each, odd = divmod(sum(payouts[place] for place in places), len(places))
        divided.extend(each + (1 if nth < odd else 0) for nth in range(len(places)))
    return tuple(divided)


TIE_RULES: Mapping[str, TieRule] = {"earliest": earliest, "split": split}
"""The tie rules by the names that the tag `X-Tie-Rule` gives them."""

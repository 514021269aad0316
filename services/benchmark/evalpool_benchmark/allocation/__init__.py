"""How a pool's funds are divided among its eligible entries.

Every rule is a pure function of one signature, `(funds, merits) -> payouts`. The merits are the
eligible entries' exact scores, best first, earlier joins first among equals; the payouts stand in
the same order and sum to the funds exactly. A rule is added by writing the function and naming it
in `RULES`.
"""

from itertools import pairwise

from evalpool_benchmark.allocation.rounding import largest_remainder
from evalpool_benchmark.allocation.rules import RULES, Merits, Rule
from evalpool_benchmark.allocation.ties import TIE_RULES, TieRule

__all__ = ["RULES", "TIE_RULES", "Merits", "Rule", "TieRule", "allocate", "largest_remainder"]


def allocate(funds: int, merits: Merits, *, rule: str, tie_rule: str) -> tuple[int, ...]:
    """Divide funds by a named allocation rule and a named tie rule.

    Args:
        funds: Units to divide, 0 or more.
        merits: The eligible entries' scores, best first.
        rule: A name in `RULES`.
        tie_rule: A name in `TIE_RULES`.

    Returns:
        Units for each entry, in the order of `merits`; they sum to `funds` unless none is.

    Raises:
        ValueError: The merits are not best first, or the funds are negative.
    """
    if funds < 0:
        raise ValueError(f"funds are {funds}; they cannot be negative")
    if any(worse > better for better, worse in pairwise(merits)):
        raise ValueError("merits must stand best first")
    return TIE_RULES[tie_rule](RULES[rule](funds, merits), merits)

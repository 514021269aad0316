"""The payout plan: who is paid what, fixed before anything is sent.

A plan's lines sum to the pool's contributions exactly. It is cut into batches no larger than the
ledger takes, once, before the first is sent. Their request ids follow from the pool's id and the
batch's number, so that any number of repeats pays once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from evalpool.values import Tag
from evalpool_benchmark.allocation import allocate
from evalpool_benchmark.pool import Pool
from evalpool_benchmark.ranking import Place, eligible

NOBODY_ELIGIBLE = "No entry was eligible when the pool ended, so every contribution goes back."


@dataclass(frozen=True, slots=True)
class Contribution:
    """One transfer into a pool.

    Attributes:
        transfer: The transfer's id.
        payer: Who paid.
        quantity: Units paid.
        time: When the ledger committed it.
        sequence: Its number on the ledger.
    """

    transfer: str
    payer: str
    quantity: int
    time: datetime
    sequence: int


@dataclass(frozen=True, slots=True)
class PayoutLine:
    """One line of a plan.

    Attributes:
        line: Its place in the plan, from 0.
        entry: The entry that won; empty where a contribution is returned.
        rank: The entry's rank on the leaderboard; 0 where a contribution is returned.
        recipient: Who is paid.
        quantity: Units, never 0.
        contribution: The contribution that is returned; empty where an entry won.
        transfer: The transfer that paid it; empty until it is sent.
        batch: The number of the batch that it is sent in, from 0; None until the plan is cut.
    """

    line: int
    entry: str
    rank: int
    recipient: str
    quantity: int
    contribution: str
    transfer: str = ""
    batch: int | None = None


def rewards(pool: Pool, places: Sequence[Place], funds: int) -> dict[str, int]:
    """What each eligible entry gets, by entry."""
    winners = eligible(places)
    merits = [place.merit for place in winners if place.merit is not None]
    units = allocate(funds, merits, rule=pool.allocation, tie_rule=pool.tie_rule)
    return {place.entry.id: each for place, each in zip(winners, units, strict=True)}


def plan(
    pool: Pool, places: Sequence[Place], contributions: Sequence[Contribution]
) -> tuple[PayoutLine, ...]:
    """The payout plan of a pool's frozen result.

    Entries that get nothing have no line. Where nobody is eligible, each contribution goes back to
    its payer.

    Returns:
        Lines whose quantities sum to the contributions.
    """
    funds = sum(contribution.quantity for contribution in contributions)
    won = rewards(pool, places, funds)
    if won:
        paid = [place for place in places if won.get(place.entry.id)]
        lines = tuple(
            PayoutLine(
                line=line,
                entry=place.entry.id,
                rank=place.rank,
                recipient=place.entry.participant,
                quantity=won[place.entry.id],
                contribution="",
            )
            for line, place in enumerate(paid)
        )
    else:
        lines = tuple(
            PayoutLine(
                line=line,
                entry="",
                rank=0,
                recipient=contribution.payer,
                quantity=contribution.quantity,
                contribution=contribution.transfer,
            )
            for line, contribution in enumerate(contributions)
        )
    planned = sum(line.quantity for line in lines)
    if planned != funds:
        raise AssertionError(f"the plan of pool {pool.id} has {planned} of {funds} units")
    return lines


def cut(lines: Sequence[PayoutLine], size: int) -> tuple[PayoutLine, ...]:
    """Cut a plan into batches.

    A plan that has been cut stays as it is: a batch may have been sent under its number already.

    Args:
        lines: The whole plan, in order.
        size: Lines in a batch at most, from 1.
    """
    if all(line.batch is not None for line in lines):
        return tuple(lines)
    return tuple(replace(line, batch=line.line // size) for line in lines)


def returns_contributions(lines: Iterable[PayoutLine]) -> bool:
    """Whether a plan returns the contributions instead of paying winners."""
    return any(line.contribution for line in lines)


def payout_request(pool: str, batch: int) -> str:
    """The request id of a batch: `payout:<pool>`, and `payout:<pool>:<n>` for further ones."""
    return f"payout:{pool}" if batch == 0 else f"payout:{pool}:{batch}"


def refund_request(transfer: str) -> str:
    """The request id of the transfer that brings a credit back."""
    return f"refund:{transfer}"


def payout_tags(pool: str, line: PayoutLine) -> tuple[Tag, ...]:
    """The tags that tell a recipient what a payout is."""
    if line.contribution:
        return (
            Tag("X-Pool", pool),
            Tag("X-Refund-Of", line.contribution),
            Tag("X-Reason", NOBODY_ELIGIBLE),
        )
    return (Tag("X-Pool", pool), Tag("X-Entry", line.entry), Tag("X-Rank", str(line.rank)))


def refund_tags(transfer: str, reason: str) -> tuple[Tag, ...]:
    """The tags that tell a payer why a credit comes back."""
    return (Tag("X-Refund-Of", transfer), Tag("X-Reason", reason))

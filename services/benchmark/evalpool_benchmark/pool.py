"""A pool's life, by the clock that is given.

scheduled → open → closing follow from the times alone; what is stored is whether the result has
been frozen (paying) and settled (paid, returned). So a pool closes at its end time however late
anybody looks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction

from evalpool_benchmark.entry import Entry
from evalpool_benchmark.funding import MAX_GRACE


class PoolState(StrEnum):
    """A pool's place in its life, as in the contract."""

    SCHEDULED = "scheduled"
    OPEN = "open"
    CLOSING = "closing"
    PAYING = "paying"
    PAID = "paid"
    RETURNED = "returned"


class SubjectKind(StrEnum):
    """What is entered in a pool."""

    MODEL = "model"
    DOCUMENT_SET = "document_set"


class Phase(StrEnum):
    """What is stored of a pool's state; the rest follows from the times."""

    RUNNING = "running"
    PAYING = "paying"
    PAID = "paid"
    RETURNED = "returned"


SETTLED = frozenset({PoolState.PAID, PoolState.RETURNED})
FROZEN = SETTLED | {PoolState.PAYING}


@dataclass(frozen=True, slots=True)
class Pool:
    """One funded benchmark.

    Attributes:
        id: The id of the transfer that made it.
        sequence: That transfer's number on the ledger: pools in order of their making.
        title: For people.
        funder: Who made it.
        dataset: The dataset's id.
        dataset_version: The version pinned when it was made.
        dataset_owner: Whose entries take no prize.
        question_count: Questions in that version.
        evaluator: The evaluator's name.
        allocation: The allocation rule's name.
        tie_rule: The tie rule's name.
        start_time: When it opens.
        end_time: When it closes.
        grace: What work in flight gets after the end.
        subject_kind: What is entered in it.
        funds: Units in it, all contributions together.
        minimum_score: What an eligible score must lie above, as written; empty where nothing.
        max_entries_per_day: Entries a participant may make in 24 hours; 0 where there is no limit.
        phase: What is stored of its state.
        freeze_time: When its result was frozen.
        settle_time: When everything was paid or returned.
    """

    id: str
    sequence: int
    title: str
    funder: str
    dataset: str
    dataset_version: str
    dataset_owner: str
    question_count: int
    evaluator: str
    allocation: str
    tie_rule: str
    start_time: datetime
    end_time: datetime
    grace: timedelta
    subject_kind: SubjectKind = SubjectKind.MODEL
    funds: int = 0
    minimum_score: str = ""
    max_entries_per_day: int = 0
    phase: Phase = Phase.RUNNING
    freeze_time: datetime | None = None
    settle_time: datetime | None = None

    @property
    def minimum(self) -> Fraction | None:
        """The minimum score as an exact fraction."""
        return Fraction(self.minimum_score) if self.minimum_score else None

    def state(self, now: datetime) -> PoolState:
        """Its place in its life at a moment."""
        if self.phase is not Phase.RUNNING:
            return PoolState(self.phase.value)
        if now >= self.end_time:
            return PoolState.CLOSING
        return PoolState.OPEN if now >= self.start_time else PoolState.SCHEDULED

    def takes_contribution(self, paid: datetime) -> bool:
        """Whether a contribution counts that the ledger committed at a moment.

        It is judged at the transfer's time, so one made in time counts even if its notice comes
        after the end; not, though, after the result is frozen and the payout planned.
        """
        return self.phase is Phase.RUNNING and paid < self.end_time


def last_freeze_time(pool: Pool, entries: Iterable[Entry], *, unreachable: bool) -> datetime:
    """When the pool's result is frozen whatever is still incomplete.

    Where every entry is final that is the end. Work in flight, and failures that may yet mend, get
    the grace time. Where the machinery failed (one of them before, by an outage that its run waited
    for too, or the standing of open work cannot be had) it is seven days.

    Args:
        pool: The pool.
        entries: Its entries.
        unreachable: True where the standing of open work cannot be had now.
    """
    unfinished = [entry for entry in entries if not entry.is_final]
    if not unfinished:
        return pool.end_time
    if unreachable or any(entry.machinery_failed for entry in unfinished):
        return pool.end_time + max(pool.grace, MAX_GRACE)
    return pool.end_time + pool.grace


def freeze(pool: Pool, now: datetime) -> Pool:
    """Freeze the result: the payout begins."""
    if pool.state(now) is not PoolState.CLOSING:
        raise ValueError(f"a pool that is {pool.state(now)} cannot be frozen")
    return replace(pool, phase=Phase.PAYING, freeze_time=now)


def settle(pool: Pool, now: datetime, *, returned: bool) -> Pool:
    """Everything has been sent."""
    if pool.phase is not Phase.PAYING:
        raise ValueError(f"a pool that is {pool.state(now)} cannot be settled")
    return replace(pool, phase=Phase.RETURNED if returned else Phase.PAID, settle_time=now)

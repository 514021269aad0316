"""A pool's leaderboard at one moment, as it is shown and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from evalpool_benchmark.entry import EntryState
from evalpool_benchmark.ranking import Place, wilson_interval


@dataclass(frozen=True, slots=True)
class Row:
    """One entry's place, with the numbers that a snapshot keeps.

    Attributes:
        rank: From 1; 0 where there is no score to rank by.
        entry: The entry's id.
        subject: The subject's digest.
        subject_name: For people.
        participant: Who entered it.
        state: The entry's status.
        correct: Questions answered rightly: given full marks.
        done: Questions answered.
        total: Questions in all.
        points: The points that it was given.
        full_marks: The points that one question can give; 0 before the first score.
        tied_with: Ids of the entries with the same score × progress.
        reward: Units that it would be paid if the pool ended now, or is paid.
        prize_free: True where it ranks but takes no prize.
        ineligible_reason: Why it takes no part in the rewards; empty where it does.
        join_time: When it was entered.
    """

    rank: int
    entry: str
    subject: str
    subject_name: str
    participant: str
    state: EntryState
    correct: int
    done: int
    total: int
    points: int
    full_marks: int
    tied_with: tuple[str, ...]
    reward: int
    prize_free: bool
    ineligible_reason: str
    join_time: datetime

    @property
    def score(self) -> float:
        """Points / (done × full marks), to show."""
        return self.points / (self.done * self.full_marks) if self.done else 0.0

    @property
    def progress(self) -> float:
        """Done / total, to show."""
        return self.done / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The score's 95 % Wilson interval, to show."""
        return wilson_interval(self.points, self.done, self.full_marks)


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """A pool's standing at one moment.

    Attributes:
        pool: The pool's id.
        rows: Best first; entries without a score last.
        time: When it was taken.
        revision: Counts the pool's snapshots, from 1; 0 for one that is not kept.
        final: True where the result is frozen.
        funds: Units in the pool.
    """

    pool: str
    rows: tuple[Row, ...]
    time: datetime
    revision: int
    final: bool
    funds: int

    def numbered(self, revision: int) -> Leaderboard:
        """The same standing as a snapshot to keep."""
        return replace(self, revision=revision)

    def shows_the_same_as(self, other: Leaderboard) -> bool:
        """Whether the standing is the same, whenever it was taken."""
        return (self.rows, self.final, self.funds) == (other.rows, other.final, other.funds)


def rows_of(places: Sequence[Place], rewards: Mapping[str, int]) -> tuple[Row, ...]:
    """The rows of a leaderboard.

    Args:
        places: The pool's entries in order.
        rewards: Units by entry; entries that are not in it get nothing.
    """
    return tuple(
        Row(
            rank=place.rank,
            entry=place.entry.id,
            subject=place.entry.subject,
            subject_name=place.entry.subject_name,
            participant=place.entry.participant,
            state=place.entry.state,
            correct=place.entry.correct,
            done=place.entry.done,
            total=place.entry.total,
            points=place.entry.points,
            full_marks=place.entry.full_marks,
            tied_with=place.tied_with,
            reward=rewards.get(place.entry.id, 0),
            prize_free=place.entry.prize_free,
            ineligible_reason=place.ineligible_reason,
            join_time=place.entry.join_time,
        )
        for place in places
    )

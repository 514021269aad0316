"""One subject in one pool: its status, and how scores from the dataset service move it on.

Nothing here knows where entries are stored or how scores arrive. Scores may come late, twice or in
the wrong order: the score's cursor, which grows with every change, decides which one is newer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction

from evalpool.transfer_ids import derived_id
from evalpool_benchmark.faults import Fault, fault_of, is_outage
from evalpool_runtime.errors import reason_name, reasons


class EntryState(StrEnum):
    """An entry's status, as in the contract."""

    SUBMITTED = "submitted"
    QUEUED = "queued"
    RUNNING = "running"
    SCORED = "scored"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    DISQUALIFIED = "disqualified"


IN_FLIGHT = frozenset({EntryState.SUBMITTED, EntryState.QUEUED, EntryState.RUNNING})
"""The states of work that is under way."""

FIRST_PAUSE = timedelta(minutes=1)
"""How long after its first failure an entry is tried again; each further pause is twice as long."""

LONGEST_PAUSE = timedelta(hours=1)
"""No pause is longer than this: a pool's grace has room for several tries."""

CUT_OFF = reason_name(reasons.ERROR_REASON_POOL_CLOSED)
"""The reason code of an entry that was incomplete when the pool's result was frozen."""


class RunState(StrEnum):
    """The status of the run that an entry follows, as the dataset service gives it."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    UNFUNDED = "unfunded"


@dataclass(frozen=True, slots=True)
class Score:
    """A run's standing.

    Attributes:
        run: The run's id.
        cursor: Grows with every change of any run.
        state: The run's status.
        correct: Questions answered rightly: given full marks.
        done: Questions done.
        total: Questions in all.
        points: The points that were given.
        full_marks: The points that one question can give, at least 1.
        queue_position: Questions of other runs before this one's.
        reason: Why it failed or waits, in one sentence; empty while the herd is at it.
        reason_code: The same as an error reason's name.
    """

    run: str
    cursor: int
    state: RunState
    correct: int
    done: int
    total: int
    points: int
    full_marks: int
    queue_position: int = 0
    reason: str = ""
    reason_code: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One subject in one pool.

    Attributes:
        id: The entry's id, derived from pool and subject.
        pool: The pool's id.
        subject: The digest of the model or document set.
        subject_name: Its name, for people.
        participant: Who entered it.
        state: Its status.
        join_time: When it was (last) entered.
        join_order: Counts the joins of the pool: who came first.
        attempt: Counts how often it was entered, from 1.
        prize_free: True where it ranks but takes no prize.
        revision: Counts its changes, from 1.
        run: The run that it follows; empty until the dataset service has been told.
        score_cursor: The cursor of the newest score applied.
        correct: Questions answered rightly: given full marks.
        done: Questions answered.
        total: Questions in all.
        points: The points that it was given: one for each right answer, or the sum of the grades.
        full_marks: The points that one question can give; 0 before the first score.
        queue_position: Questions before it in the queue.
        reason: The cause of a failure, a wait or a disqualification, in one sentence.
        reason_code: The same as an error reason's name.
        machinery_failed: True once the machinery has failed this attempt, or left its run waiting
            for an outage: a pool's end then waits longer for it.
        failures: Counts the failures of this attempt that were not the subject's.
        retry_time: When it is tried again, where it has failed or waits and may still be scored.
        end_time: When it reached its final state.
    """

    id: str
    pool: str
    subject: str
    subject_name: str
    participant: str
    state: EntryState
    join_time: datetime
    join_order: int
    attempt: int = 1
    prize_free: bool = False
    revision: int = 1
    run: str = ""
    score_cursor: int = 0
    correct: int = 0
    done: int = 0
    total: int = 0
    points: int = 0
    full_marks: int = 0
    queue_position: int = 0
    reason: str = ""
    reason_code: str = ""
    machinery_failed: bool = False
    failures: int = 0
    retry_time: datetime | None = None
    end_time: datetime | None = None

    @property
    def score(self) -> Fraction:
        """Its points, of those that the questions answered can give; 0 where there are none."""
        return Fraction(self.points, self.done * self.full_marks) if self.done else Fraction(0)

    @property
    def is_final(self) -> bool:
        """True where nothing more happens unless somebody acts."""
        return self.state not in IN_FLIGHT and self.retry_time is None

    def is_due(self, now: datetime) -> bool:
        """Whether the dataset service is to be told of it, for the first time or again."""
        if self.state is EntryState.SUBMITTED:
            return True
        return self.retry_time is not None and self.retry_time <= now

    @property
    def is_cut_off(self) -> bool:
        """True where the pool's result was frozen before the entry was evaluated completely."""
        return self.state is EntryState.FAILED and self.reason_code == CUT_OFF

    @property
    def benchmark_request(self) -> str:
        """The request id of this attempt's next call to the dataset service."""
        attempt = self.id if self.attempt == 1 else f"{self.id}:{self.attempt}"
        return f"{attempt}:retry:{self.failures}" if self.failures else attempt


def entry_id(pool: str, subject: str) -> str:
    """The id of a subject's entry in a pool: there is one for each pair."""
    return derived_id(f"evalpool entry\0{pool}\0{subject}".encode())


def bind(entry: Entry, score: Score, now: datetime) -> Entry:
    """Follow the run that the dataset service has begun, or begun again, for an entry that was due.

    Args:
        entry: The entry.
        score: The run's present standing.
        now: The time.
    """
    if not entry.is_due(now):
        return follow(entry, score, now)
    if score.run == entry.run and score.cursor <= entry.score_cursor:
        # The try has changed nothing, so the next one is later.
        return _try_later(entry, now)
    return _apply(replace(entry, run=score.run), score, now)


def follow(entry: Entry, score: Score, now: datetime) -> Entry:
    """Move an entry on by a newer score of its run.

    Returns:
        The entry with its next revision, or the same entry where the score is of another run, is
        not newer, or comes too late to matter: a withdrawn or disqualified entry stays what it is,
        and so does one whose failure no further try can mend. Its place in the queue moves without
        a new cursor, since it is other runs that change.
    """
    if entry.is_final or score.run != entry.run or score.cursor < entry.score_cursor:
        return entry
    if score.cursor == entry.score_cursor:
        return _moved_in_queue(entry, score)
    return _apply(entry, score, now)


def refuse(entry: Entry, reason: str, reason_code: str, now: datetime) -> Entry:
    """Fail an entry that the dataset service does not take, for good or until the next try.

    Returns:
        The entry with its next revision, or the same entry where it is not due any more: it was
        withdrawn meanwhile, or another replica has submitted it too.
    """
    if not entry.is_due(now):
        return entry
    return _failed(replace(entry, reason=reason, reason_code=reason_code), now)


def cut_off(entry: Entry, now: datetime) -> Entry:
    """End what is not final when the pool's result is frozen; it keeps its counts."""
    reason = (
        f"Not evaluated completely when the pool's result was frozen: {entry.done} of "
        f"{entry.total or 'all'} questions were done."
    )
    return _ended(entry, EntryState.FAILED, now, reason, CUT_OFF)


def withdraw(entry: Entry, now: datetime) -> Entry:
    """Take an entry out for its participant."""
    return _ended(entry, EntryState.WITHDRAWN, now)


def disqualify(entry: Entry, reason: str, now: datetime) -> Entry:
    """Exclude an entry, with a public reason."""
    return _ended(entry, EntryState.DISQUALIFIED, now, reason)


def enter_again(entry: Entry, subject_name: str, join_order: int, now: datetime) -> Entry:
    """Begin a new attempt of a failed or withdrawn entry; it joins anew, behind the others."""
    return replace(
        entry,
        subject_name=subject_name,
        state=EntryState.SUBMITTED,
        join_time=now,
        join_order=join_order,
        attempt=entry.attempt + 1,
        run="",
        correct=0,
        done=0,
        points=0,
        full_marks=0,
        queue_position=0,
        reason="",
        reason_code="",
        machinery_failed=False,
        failures=0,
        retry_time=None,
        end_time=None,
        revision=entry.revision + 1,
    )


def pause_after(failures: int) -> timedelta:
    """How long the next try waits after so many failures, from 1."""
    # Any larger exponent gives the longest pause as well, and a timedelta has an end.
    return min(FIRST_PAUSE * (1 << min(failures - 1, 16)), LONGEST_PAUSE)


def _apply(entry: Entry, score: Score, now: datetime) -> Entry:
    known = replace(
        entry,
        score_cursor=max(score.cursor, entry.score_cursor),
        correct=score.correct,
        done=score.done,
        total=score.total,
        points=score.points,
        full_marks=score.full_marks,
        queue_position=0,
        reason=score.reason,
        reason_code=score.reason_code,
    )
    match score.state:
        case RunState.FAILED:
            return _failed(known, now)
        case RunState.UNFUNDED:
            waiting = replace(known, state=EntryState.QUEUED, queue_position=score.queue_position)
            return _try_later(waiting, now)
        case RunState.COMPLETE:
            return _ended(known, EntryState.SCORED, now)
        case RunState.RUNNING:
            state, position = EntryState.RUNNING, 0
        case RunState.QUEUED:
            state, position = EntryState.QUEUED, score.queue_position
    return replace(
        known,
        state=state,
        queue_position=position,
        # A run that waits for the herd says why. That time was lost, so it is remembered: a pool
        # whose grace has passed must not be frozen at the moment when the herd is back.
        machinery_failed=entry.machinery_failed or is_outage(score.reason_code),
        retry_time=None,
        revision=entry.revision + 1,
    )


def _moved_in_queue(entry: Entry, score: Score) -> Entry:
    """An entry whose run is as it was, with the place in the queue that it has by now."""
    if entry.state is not EntryState.QUEUED or score.queue_position == entry.queue_position:
        return entry
    return replace(entry, queue_position=score.queue_position, revision=entry.revision + 1)


def _failed(entry: Entry, now: datetime) -> Entry:
    """Fail an entry by the reason that it has, for good where that is the subject's fault."""
    if fault_of(entry.reason_code) is Fault.SUBJECT:
        return _ended(entry, EntryState.FAILED, now, entry.reason, entry.reason_code)
    return _try_later(replace(entry, state=EntryState.FAILED, queue_position=0), now)


def _try_later(entry: Entry, now: datetime) -> Entry:
    """Say when an entry is tried again; one whose next try is still to come keeps to it."""
    failures, retry_time = entry.failures, entry.retry_time
    if retry_time is None or retry_time <= now:
        failures += 1
        retry_time = now + pause_after(failures)
    by_machinery = fault_of(entry.reason_code) is Fault.MACHINERY
    return replace(
        entry,
        machinery_failed=entry.machinery_failed or by_machinery,
        failures=failures,
        retry_time=retry_time,
        revision=entry.revision + 1,
    )


def _ended(
    entry: Entry, state: EntryState, now: datetime, reason: str = "", reason_code: str = ""
) -> Entry:
    """Bring an entry to a final state."""
    return replace(
        entry,
        state=state,
        reason=reason,
        reason_code=reason_code,
        queue_position=0,
        machinery_failed=False,
        retry_time=None,
        end_time=now,
        revision=entry.revision + 1,
    )

"""One subject in one pool: its status, and how scores from the dataset service move it on.

Nothing here knows where entries are stored or how scores arrive. Scores may come late, twice or in
the wrong order: the score's cursor, which grows with every change, decides which one is newer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from evalpool.transfer_ids import derived_id
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
"""Work that a pool's end still gives time to."""

FINAL = frozenset(EntryState) - IN_FLIGHT
"""States that end a watch."""


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
        correct: Questions answered rightly.
        done: Questions done.
        total: Questions in all.
        queue_position: Questions of other runs before this one's.
        reason: Why it failed or waits, in one sentence.
        reason_code: The same as an error reason's name.
    """

    run: str
    cursor: int
    state: RunState
    correct: int
    done: int
    total: int
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
        correct: Questions answered rightly.
        done: Questions answered.
        total: Questions in all.
        queue_position: Questions before it in the queue.
        reason: The cause of a failure, a wait or a disqualification, in one sentence.
        reason_code: The same as an error reason's name.
        machinery_failed: True where it is the machinery that keeps it from being scored.
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
    queue_position: int = 0
    reason: str = ""
    reason_code: str = ""
    machinery_failed: bool = False
    end_time: datetime | None = None

    @property
    def is_final(self) -> bool:
        """True where nothing more happens unless somebody acts."""
        return self.state in FINAL

    @property
    def is_cut_off(self) -> bool:
        """True where the pool's result was frozen before the entry was evaluated completely."""
        return self.state is EntryState.FAILED and self.reason_code == CUT_OFF

    @property
    def benchmark_request(self) -> str:
        """The request id of this attempt's call to the dataset service."""
        return self.id if self.attempt == 1 else f"{self.id}:{self.attempt}"


SUBJECT_FAULTS = frozenset(
    reason_name(reason)
    for reason in (
        reasons.ERROR_REASON_MODEL_NOT_FOUND,
        reasons.ERROR_REASON_SUBJECT_NOT_OWNED,
        reasons.ERROR_REASON_EVALUATOR_MISMATCH,
        reasons.ERROR_REASON_DEGENERATE_SCORES,
        reasons.ERROR_REASON_DIGEST_MISMATCH,
        reasons.ERROR_REASON_INVALID_GGUF,
        reasons.ERROR_REASON_MODEL_LOAD_FAILED,
        reasons.ERROR_REASON_CONTEXT_TOO_LONG,
        reasons.ERROR_REASON_DATASET_NOT_FOUND,
        reasons.ERROR_REASON_DATASET_EMPTY,
        reasons.ERROR_REASON_INVALID_FIELD,
        reasons.ERROR_REASON_DOCUMENT_SET_NOT_FOUND,
        reasons.ERROR_REASON_POOL_CLOSED,
    )
)
"""Failures that another try of the same thing would only repeat; all others are the machinery's."""


def entry_id(pool: str, subject: str) -> str:
    """The id of a subject's entry in a pool: there is one for each pair."""
    return derived_id(f"evalpool entry\0{pool}\0{subject}".encode())


def bind(entry: Entry, score: Score, now: datetime) -> Entry:
    """Follow the run that the dataset service made for this attempt, from its present standing."""
    if entry.state is not EntryState.SUBMITTED:
        return entry
    return _apply(replace(entry, run=score.run), score, now)


def follow(entry: Entry, score: Score, now: datetime) -> Entry:
    """Move an entry on by a newer score of its run.

    Returns:
        The entry with its next revision, or the same entry where the score is of another run, is
        not newer, or comes too late to matter: a withdrawn or disqualified entry stays what it is,
        and so does one whose failure no further try can mend.
    """
    if score.run != entry.run or score.cursor <= entry.score_cursor:
        return entry
    mendable = entry.state is EntryState.FAILED and entry.machinery_failed
    if entry.state not in IN_FLIGHT and not mendable:
        return entry
    return _apply(entry, score, now)


def fail(entry: Entry, reason: str, reason_code: str, now: datetime) -> Entry:
    """End an entry in flight, with the cause."""
    return replace(
        entry,
        state=EntryState.FAILED,
        reason=reason,
        reason_code=reason_code,
        machinery_failed=reason_code not in SUBJECT_FAULTS,
        queue_position=0,
        end_time=now,
        revision=entry.revision + 1,
    )


def cut_off(entry: Entry, now: datetime) -> Entry:
    """End what is still in flight when the pool's result is frozen; it keeps its counts."""
    return fail(
        entry,
        f"Not evaluated completely when the pool's result was frozen: {entry.done} of "
        f"{entry.total or 'all'} questions were done.",
        CUT_OFF,
        now,
    )


def withdraw(entry: Entry, now: datetime) -> Entry:
    """Take an entry out for its participant."""
    return replace(
        entry,
        state=EntryState.WITHDRAWN,
        reason="",
        reason_code="",
        machinery_failed=False,
        queue_position=0,
        end_time=now,
        revision=entry.revision + 1,
    )


def disqualify(entry: Entry, reason: str, now: datetime) -> Entry:
    """Exclude an entry, with a public reason."""
    return replace(
        entry,
        state=EntryState.DISQUALIFIED,
        reason=reason,
        reason_code="",
        machinery_failed=False,
        queue_position=0,
        end_time=now,
        revision=entry.revision + 1,
    )


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
        queue_position=0,
        reason="",
        reason_code="",
        machinery_failed=False,
        end_time=None,
        revision=entry.revision + 1,
    )


def is_machinery(reason_code: str) -> bool:
    """True where a failure is not the subject's doing, so that another try may succeed."""
    return reason_code not in SUBJECT_FAULTS


def _apply(entry: Entry, score: Score, now: datetime) -> Entry:
    state = {
        RunState.QUEUED: EntryState.QUEUED,
        RunState.UNFUNDED: EntryState.QUEUED,
        RunState.RUNNING: EntryState.RUNNING,
        RunState.COMPLETE: EntryState.SCORED,
        RunState.FAILED: EntryState.FAILED,
    }[score.state]
    waits = score.state is RunState.UNFUNDED
    failed = state is EntryState.FAILED
    return replace(
        entry,
        state=state,
        score_cursor=max(score.cursor, entry.score_cursor),
        correct=score.correct,
        done=score.done,
        total=score.total,
        queue_position=score.queue_position if state is EntryState.QUEUED else 0,
        reason=score.reason if failed or waits else "",
        reason_code=score.reason_code if failed or waits else "",
        machinery_failed=waits or (failed and is_machinery(score.reason_code)),
        end_time=now if state in FINAL else None,
        revision=entry.revision + 1,
    )

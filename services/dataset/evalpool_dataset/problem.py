"""Why questions have no answer, and what follows from it. Pure.

Three things are told apart. Where the herd has no room or no worker now, did not come to them in
time, or cannot be reached, the questions wait for it: nothing has been tried. Where a worker was at
a question and failed, that was an attempt, whether or not the worker had said that it began.
Everything else is a failed start, also that the model could not be fetched: its source may be out
of reach for a while.
"""

from __future__ import annotations

from dataclasses import dataclass

from evalpool_runtime.errors import reason_name, reasons

DEADLINE_EXCEEDED = reason_name(reasons.ERROR_REASON_DEADLINE_EXCEEDED)
ENGINE_FAILED = reason_name(reasons.ERROR_REASON_ENGINE_FAILED)
HOLD_REFUSED = reason_name(reasons.ERROR_REASON_HOLD_REFUSED)
INTERNAL = reason_name(reasons.ERROR_REASON_INTERNAL)
MODEL_FETCH_FAILED = reason_name(reasons.ERROR_REASON_MODEL_FETCH_FAILED)
UNAVAILABLE = reason_name(reasons.ERROR_REASON_UNAVAILABLE)
WORKER_LOST = reason_name(reasons.ERROR_REASON_WORKER_LOST)

_WAITS = frozenset(
    reason_name(reason)
    for reason in (
        reasons.ERROR_REASON_DEADLINE_EXCEEDED,
        reasons.ERROR_REASON_DOCUMENT_SET_NOT_READY,
        reasons.ERROR_REASON_NO_WORKER,
        reasons.ERROR_REASON_OVERLOADED,
        reasons.ERROR_REASON_QUEUE_FULL,
        reasons.ERROR_REASON_UNAVAILABLE,
        reasons.ERROR_REASON_WORKER_BUSY,
    )
)
_WORKER_WAS_AT_IT = frozenset({ENGINE_FAILED, WORKER_LOST})
_SUBJECTS_FAULTS = frozenset(
    reason_name(reason)
    for reason in (
        reasons.ERROR_REASON_DOCUMENT_SET_NOT_FOUND,
        reasons.ERROR_REASON_MODEL_NOT_FOUND,
        reasons.ERROR_REASON_MODEL_LOAD_FAILED,
        reasons.ERROR_REASON_DIGEST_MISMATCH,
        reasons.ERROR_REASON_INVALID_GGUF,
    )
)

TELLING = (
    reason_name(reasons.ERROR_REASON_CONTEXT_TOO_LONG),
    reason_name(reasons.ERROR_REASON_INVALID_FIELD),
    MODEL_FETCH_FAILED,
)
"""Causes of failed questions that say more of a run than that questions failed.

The first two are the model's together with the question, so that another try would end alike.
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why questions have no answer.

    Attributes:
        reason: One sentence.
        code: The name of an ErrorReason without its prefix; empty for none.
        retryable: Another try may succeed.
        retry_after: Seconds after which another try makes sense; None where nobody said.
    """

    reason: str
    code: str = ""
    retryable: bool = True
    retry_after: float | None = None

    @property
    def waits(self) -> bool:
        """The herd cannot take it up now: unless a worker had begun, nothing has been tried."""
        return self.code in _WAITS

    @property
    def unfunded(self) -> bool:
        """What it costs cannot be held, or the hold is refused: the run waits for units."""
        return self.code == HOLD_REFUSED

    @property
    def keeps_all_waiting(self) -> bool:
        """It keeps every question of the run from being asked now, and may pass."""
        return self.waits or self.unfunded or self.code == MODEL_FETCH_FAILED

    @property
    def worker_was_at_it(self) -> bool:
        """An attempt: a worker that dies as it loads the model never says that it began."""
        return self.code in _WORKER_WAS_AT_IT

    @property
    def subjects_fault(self) -> bool:
        """No question of the run can be answered, because its model cannot be run."""
        return self.code in _SUBJECTS_FAULTS


INTERRUPTED = Problem("the evaluation was interrupted, because the service stopped", UNAVAILABLE)
"""The service's own stop, or a lost lease."""

BROKEN = Problem("the evaluation broke on a fault of the dataset service; see its log", INTERNAL)
"""A fault that nobody foresaw."""


class CallEnded(Exception):
    """A call to the herd ended early; what came before it stands.

    Attributes:
        problem: Why.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.reason)
        self.problem = problem

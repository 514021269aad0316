"""Whose fault it is that a subject could not be evaluated, by the reason that was given.

It decides what becomes of the entry, and for how long a pool's end waits for it:

| fault | the entry | the pool's end |
|---|---|---|
| of the subject | has failed for good; its participant may enter it again | does not wait |
| of the machinery | is tried again, with growing pauses | waits up to seven days |
| unknown | is tried again, with growing pauses | waits the pool's grace, as for work in flight |

A run may also wait without having failed, and say what for. Where that is an outage (the herd is
out of reach, has no worker for it, or none came to it in the time that the router gives it), the
machinery has failed it as above. A herd that is merely busy has not: its queue is full because work
is under way, which is what the pool's grace is for.

So a reason that this version has never heard of, and that may never change, does not hold money for
a week; and a failure that may mend does not end an entry that deserves to be scored.
"""

from __future__ import annotations

from enum import Enum, auto

from evalpool_runtime.errors import reason_name, reasons


class Fault(Enum):
    """Whose fault a failure is."""

    SUBJECT = auto()
    """The subject's, or of what the pool asks of it: another try would end alike."""
    MACHINERY = auto()
    """The services', the herd's or their operators': another try may succeed."""
    UNKNOWN = auto()
    """Nobody can tell from here."""


FAULTS = {
    # Our own request, or a question that the model's tokenizer makes nothing of, breaks a rule.
    reasons.ERROR_REASON_INVALID_FIELD: Fault.SUBJECT,
    # It was there when it was entered, and only its owner or the operator takes it away. Of a model
    # that answers from document sets, or judges, the dataset service tells as of its own machinery.
    reasons.ERROR_REASON_MODEL_NOT_FOUND: Fault.SUBJECT,
    reasons.ERROR_REASON_DOCUMENT_SET_NOT_FOUND: Fault.SUBJECT,
    reasons.ERROR_REASON_SUBJECT_NOT_OWNED: Fault.SUBJECT,
    # The pool's terms, which never change.
    reasons.ERROR_REASON_EVALUATOR_MISMATCH: Fault.SUBJECT,
    # What the model's own file is like.
    reasons.ERROR_REASON_DIGEST_MISMATCH: Fault.SUBJECT,
    reasons.ERROR_REASON_INVALID_GGUF: Fault.SUBJECT,
    reasons.ERROR_REASON_MODEL_LOAD_FAILED: Fault.SUBJECT,
    reasons.ERROR_REASON_CONTEXT_TOO_LONG: Fault.SUBJECT,
    reasons.ERROR_REASON_DEGENERATE_SCORES: Fault.SUBJECT,
    # Sources, workers and queues that are out of order or full.
    reasons.ERROR_REASON_MODEL_FETCH_FAILED: Fault.MACHINERY,
    reasons.ERROR_REASON_EVALUATION_FAILED: Fault.MACHINERY,
    reasons.ERROR_REASON_ENGINE_FAILED: Fault.MACHINERY,
    reasons.ERROR_REASON_WORKER_LOST: Fault.MACHINERY,
    reasons.ERROR_REASON_WORKER_BUSY: Fault.MACHINERY,
    reasons.ERROR_REASON_NO_WORKER: Fault.MACHINERY,
    reasons.ERROR_REASON_QUEUE_FULL: Fault.MACHINERY,
    reasons.ERROR_REASON_LEASE_LOST: Fault.MACHINERY,
    # Whoever runs the herd pays for it, not the participant.
    reasons.ERROR_REASON_HOLD_REFUSED: Fault.MACHINERY,
    reasons.ERROR_REASON_INSUFFICIENT_BALANCE: Fault.MACHINERY,
    # The pool pinned what was there: a service has lost it, or is another one for the time being.
    reasons.ERROR_REASON_DATASET_NOT_FOUND: Fault.MACHINERY,
    reasons.ERROR_REASON_DATASET_EMPTY: Fault.MACHINERY,
    reasons.ERROR_REASON_RUN_NOT_FOUND: Fault.MACHINERY,
    # Keys, rights and tokens between services are their operators' affair.
    reasons.ERROR_REASON_NOT_ALLOWED: Fault.MACHINERY,
    reasons.ERROR_REASON_TOKEN_MISSING: Fault.MACHINERY,
    reasons.ERROR_REASON_TOKEN_INVALID: Fault.MACHINERY,
    reasons.ERROR_REASON_TOKEN_EXPIRED: Fault.MACHINERY,
    reasons.ERROR_REASON_TOKEN_FOR_ANOTHER_SERVER: Fault.MACHINERY,
    reasons.ERROR_REASON_TOKEN_REPLAYED: Fault.MACHINERY,
    reasons.ERROR_REASON_INTERNAL: Fault.MACHINERY,
    reasons.ERROR_REASON_UNAVAILABLE: Fault.MACHINERY,
    reasons.ERROR_REASON_OVERLOADED: Fault.MACHINERY,
    reasons.ERROR_REASON_DEADLINE_EXCEEDED: Fault.MACHINERY,
    # It could be searched when it was entered: its owner has made it anew, or the operator embeds
    # everything by another model.
    reasons.ERROR_REASON_DOCUMENT_SET_NOT_READY: Fault.UNKNOWN,
}
"""Every reason that the dataset service may give for a run; of all others the fault is unknown."""

BUSY = frozenset(
    {
        reasons.ERROR_REASON_QUEUE_FULL,
        reasons.ERROR_REASON_WORKER_BUSY,
        reasons.ERROR_REASON_OVERLOADED,
    }
)
"""What a run waits for where the herd is at work for others."""

_BY_NAME = {reason_name(reason): fault for reason, fault in FAULTS.items()}
_BUSY_NAMES = frozenset(reason_name(reason) for reason in BUSY)


def fault_of(reason_code: str) -> Fault:
    """Whose fault a failure is, by the name of its error reason; an empty one is unknown."""
    return _BY_NAME.get(reason_code, Fault.UNKNOWN)


def is_outage(reason_code: str) -> bool:
    """Whether a run that waits for this reason waits for machinery that is out of order."""
    return fault_of(reason_code) is Fault.MACHINERY and reason_code not in _BUSY_NAMES

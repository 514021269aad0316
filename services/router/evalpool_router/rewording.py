"""What a worker objects to in a conversation that the router wrote, in the request's words."""

from __future__ import annotations

from evalpool.values import Violation
from evalpool_runtime.errors import DomainError, Internal, InvalidRequest, reasons

GRADES_NEED_GRAMMARS = (
    "name another model, or have judging done by workers whose engine applies grammars"
)


def of_the_question(error: InvalidRequest) -> DomainError:
    """A refusal to answer a question, whose fields are `question` and `context`."""
    if error.reason == reasons.ERROR_REASON_CONTEXT_TOO_LONG:
        return _too_long(error, "with the context")
    if any(violation.field.startswith("chat") for violation in error.violations):
        return _of_the_model(error)
    return error


def of_the_judging(error: InvalidRequest) -> DomainError:
    """A refusal to grade: but for their length the caller's texts are not what it is about."""
    if error.reason == reasons.ERROR_REASON_CONTEXT_TOO_LONG:
        return _too_long(error, "with all that the judge is to read")
    if any(violation.field.startswith("chat") for violation in error.violations):
        return _of_the_model(error)
    return Internal(
        reasons.ERROR_REASON_ENGINE_FAILED,
        f"model: the judge cannot be held to a grade ({_told(error)}); {GRADES_NEED_GRAMMARS}",
    )


def no_grade() -> DomainError:
    """A reply that is no grade, although the grammar allows nothing else."""
    return Internal(
        reasons.ERROR_REASON_ENGINE_FAILED,
        "model: the judge's reply is no grade although its grammar allows nothing else, so the "
        f"worker's engine does not apply it; {GRADES_NEED_GRAMMARS}",
    )


def _too_long(error: InvalidRequest, along_with: str) -> DomainError:
    description = (
        f"{along_with} it {_told(error)}; shorten the texts, or name a model with a longer context"
    )
    return InvalidRequest([Violation("question", description)], reason=error.reason)


def _of_the_model(error: InvalidRequest) -> DomainError:
    description = f"its chat template takes no such turns ({_told(error)}); name another"
    return InvalidRequest([Violation("model", description)])


def _told(error: InvalidRequest) -> str:
    # The fields are those of the router's own request to the worker.
    return "; ".join(violation.description for violation in error.violations) or error.message

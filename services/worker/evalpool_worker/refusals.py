"""The engine's errors, as the contract tells them."""

from __future__ import annotations

from evalpool.values import Violation
from evalpool_runtime.errors import (
    DomainError,
    Internal,
    InvalidRequest,
    ResourceExhausted,
    Unavailable,
    reasons,
)
from evalpool_worker.engine.errors import (
    EngineBusyError,
    EngineError,
    InvalidParametersError,
    NoModelLoadedError,
    PromptTooLongError,
)

RETRY_SECONDS = 0.2

_PLACES = {"prompt": "prompt", "messages": "chat.messages", "template": "chat.template"}
"""Where the engine's parameters stand in a request; all others are under `sampling`."""


def as_domain_error(error: EngineError) -> DomainError:
    """What to tell the caller of an engine's error."""
    match error:
        case InvalidParametersError():
            place = _PLACES.get(error.field, f"sampling.{error.field}")
            # The engine's sentences begin with the parameter and end with a full stop.
            description = str(error).removeprefix(f"{error.field} ").removesuffix(".")
            return InvalidRequest(
                [Violation(place, description)],
                reason=reasons.ERROR_REASON_CONTEXT_TOO_LONG
                if isinstance(error, PromptTooLongError)
                else reasons.ERROR_REASON_INVALID_FIELD,
            )
        case NoModelLoadedError():
            return unloaded()
        case EngineBusyError():
            return ResourceExhausted(
                reasons.ERROR_REASON_WORKER_BUSY, str(error), retry_after=error.retry_after
            )
        case _:
            return Internal(
                reasons.ERROR_REASON_ENGINE_FAILED, f"the worker's engine failed: {error}"
            )


def unloaded() -> DomainError:
    """The model went while the request was on its way to it."""
    return Unavailable(
        reasons.ERROR_REASON_UNAVAILABLE,
        "the model was unloaded before the request began; try again",
        retry_after=RETRY_SECONDS,
    )

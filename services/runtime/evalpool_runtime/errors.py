"""The domain's exceptions. Domain code raises them; the interceptor turns them into statuses.

Each class stands for one gRPC status code (the table is in `evalpool_runtime.error_status`); each
instance carries one reason of `evalpool.common.v1.ErrorReason`, a sentence that names the field and
the remedy, and metadata with the values of interest.
"""

from __future__ import annotations

from collections.abc import Iterable

from evalpool.common.v1 import error_reason_pb2 as reasons
from evalpool.common.v1.error_reason_pb2 import ErrorReason
from evalpool.values import Violation

__all__ = [
    "Aborted",
    "AlreadyExists",
    "DeadlineExceeded",
    "DomainError",
    "FailedPrecondition",
    "Internal",
    "InvalidRequest",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "reason_name",
    "reasons",
]


def reason_name(reason: ErrorReason.ValueType) -> str:
    """The reason as it stands in ErrorInfo: the enum value's name without its prefix."""
    return ErrorReason.Name(reason).removeprefix("ERROR_REASON_")


class DomainError(Exception):
    """A refusal that the caller is told of.

    Attributes:
        reason: The machine-readable cause.
        message: One sentence for people.
        metadata: Values of interest, by name.
        retry_after: Seconds after which another try makes sense, or None.
    """

    def __init__(
        self,
        reason: ErrorReason.ValueType,
        message: str,
        *,
        retry_after: float | None = None,
        **metadata: str,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata
        self.retry_after = retry_after

    @property
    def reason_name(self) -> str:
        """The reason as it stands in ErrorInfo."""
        return reason_name(self.reason)


class InvalidRequest(DomainError):
    """INVALID_ARGUMENT: fields break their rules, whatever the state of the system."""

    def __init__(
        self,
        violations: Iterable[Violation],
        *,
        reason: ErrorReason.ValueType = reasons.ERROR_REASON_INVALID_FIELD,
        message: str | None = None,
        **metadata: str,
    ) -> None:
        self.violations = tuple(violations)
        sentence = message or "; ".join(f"{v.field}: {v.description}" for v in self.violations)
        super().__init__(reason, sentence, retry_after=None, **metadata)


class Unauthenticated(DomainError):
    """UNAUTHENTICATED: the call does not prove who makes it."""


class PermissionDenied(DomainError):
    """PERMISSION_DENIED: the caller is known, and may not do this."""


class NotFound(DomainError):
    """NOT_FOUND: the named thing does not exist, or the caller may not know that it does."""


class AlreadyExists(DomainError):
    """ALREADY_EXISTS: the name is taken, by something else."""


class FailedPrecondition(DomainError):
    """FAILED_PRECONDITION: the state of the system does not allow it now."""


class Aborted(DomainError):
    """ABORTED: something else came between; begin again at a higher level."""


class ResourceExhausted(DomainError):
    """RESOURCE_EXHAUSTED: a limit or a quota is reached."""


class Unavailable(DomainError):
    """UNAVAILABLE: try again later."""


class DeadlineExceeded(DomainError):
    """DEADLINE_EXCEEDED: it was not done in the time that it was given."""


class Internal(DomainError):
    """INTERNAL: a failure that is not the caller's doing, and whose cause may be told."""

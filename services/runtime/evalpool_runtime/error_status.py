"""Domain exceptions as gRPC statuses: the one table, and AIP-193's details."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from evalpool.values import InvalidFields, Violation
from evalpool_runtime import errors
from evalpool_runtime.protobuf import duration

DOMAIN = "evalpool"

# Errors travel in the trailers, which have MAX_METADATA_BYTES. The sentence is there twice: once
# percent-encoded, three characters a byte at worst, and once in the details, in base64.
MOST_MESSAGE_BYTES = 4_000
MOST_FIELD_BYTES = 1_000
MOST_VIOLATIONS_BYTES = 30_000
VIOLATION_OVERHEAD_BYTES = 8

CODES: dict[type[errors.DomainError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Aborted: grpc.StatusCode.ABORTED,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Internal: grpc.StatusCode.INTERNAL,
}


def as_domain_error(error: Exception) -> errors.DomainError | None:
    """The domain error that an exception is or stands for; None for one that nobody foresaw."""
    if isinstance(error, errors.DomainError):
        return error
    if isinstance(error, InvalidFields):
        return errors.InvalidRequest(error.violations)
    if isinstance(error, grpc.aio.AioRpcError) and error.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ):
        return errors.Unavailable(
            errors.reasons.ERROR_REASON_UNAVAILABLE,
            "a service that this call needs cannot be reached now; try again",
            retry_after=1.0,
        )
    return None


def status_of(error: errors.DomainError) -> grpc.Status:
    """The status of a domain error: code, sentence and details."""
    code = next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
    status = status_pb2.Status(
        code=code_pb2.Code.Value(code.name),
        message=_cut(error.message, MOST_MESSAGE_BYTES),
    )
    _attach(
        status,
        error_details_pb2.ErrorInfo(
            reason=error.reason_name,
            domain=DOMAIN,
            metadata={
                name: _cut(value, MOST_FIELD_BYTES) for name, value in error.metadata.items()
            },
        ),
    )
    if isinstance(error, errors.InvalidRequest) and error.violations:
        _attach(status, _bad_request(error.violations))
    if error.retry_after is not None:
        _attach(
            status,
            error_details_pb2.RetryInfo(retry_delay=duration(timedelta(seconds=error.retry_after))),
        )
    return rpc_status.to_status(status)


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    """As many violations as the trailers carry, and how many there are besides."""
    bad_request = error_details_pb2.BadRequest()
    size = 0
    for number, violation in enumerate(violations):
        field = _cut(violation.field, MOST_FIELD_BYTES)
        description = _cut(violation.description, MOST_FIELD_BYTES)
        size += len(field.encode()) + len(description.encode()) + VIOLATION_OVERHEAD_BYTES
        if size > MOST_VIOLATIONS_BYTES:
            bad_request.field_violations.add(
                field="", description=f"{len(violations) - number} more fields break their rules"
            )
            break
        bad_request.field_violations.add(field=field, description=description)
    return bad_request


def _cut(text: str, most: int) -> str:
    raw = text.encode(errors="replace")
    return raw.decode() if len(raw) <= most else raw[:most].decode(errors="ignore") + "…"


def _attach(status: status_pb2.Status, detail: object) -> None:
    packed = Any()
    packed.Pack(detail)  # type: ignore[arg-type]
    status.details.append(packed)

"""Errors of calls, as clients see them."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from evalpool.values import Violation


@dataclass(eq=False)
class CallError(Exception):
    """A call that was refused or failed.

    Attributes:
        code: The gRPC status code.
        message: One sentence for people.
        reason: The name of an ErrorReason without its prefix; empty where the server gave none.
        metadata: Values of interest, by name.
        violations: The fields that break their rules.
        retry_after: Seconds after which another try makes sense, or None.
    """

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    retry_after: float | None = None

    def __str__(self) -> str:
        """The sentence."""
        return self.message

    @classmethod
    def of(cls, error: grpc.RpcError) -> CallError:
        """Read a call's error and its AIP-193 details."""
        code = error.code()
        made = cls(code=code, message=error.details() or code.name)
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        for detail in status.details if status is not None else ():
            info = error_details_pb2.ErrorInfo()
            bad_request = error_details_pb2.BadRequest()
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                made.reason = info.reason
                made.metadata = dict(info.metadata)
            elif detail.Unpack(bad_request):
                made.violations = tuple(
                    Violation(v.field, v.description) for v in bad_request.field_violations
                )
            elif detail.Unpack(retry):
                made.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        return made

"""Other services, in the terms of this service's domain.

Everything that gRPC may answer becomes a value or one of two exceptions: `PeerUnavailable`, where a
later try may succeed, and `PeerRefused`, where the peer has decided.
"""

from __future__ import annotations

import grpc

from evalpool.errors import CallError

_RETRYABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.DATA_LOSS,
        # Tokens lapse and keys are set up: nothing that the peer has decided about the content.
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
_NOT_ALLOWED = "NOT_ALLOWED"


class PeerUnavailable(Exception):
    """A peer could not be reached, or could not answer now."""


class PeerRefused(Exception):
    """A peer has refused a request, and would again.

    Attributes:
        not_found: True where what was asked for does not exist.
        reason: The peer's sentence.
        reason_code: The name of its error reason; empty where it gave none.
        retry_after: Seconds after which it might do it after all; None where it gave none.
    """

    def __init__(self, told: CallError) -> None:
        super().__init__(f"{told.code.name} {told.reason}: {told.message}")
        self.not_found = told.code is grpc.StatusCode.NOT_FOUND
        self.reason = told.message
        self.reason_code = told.reason
        self.retry_after = told.retry_after


def peer_error(error: grpc.aio.AioRpcError) -> PeerUnavailable | PeerRefused:
    """What a call that failed says of its peer."""
    told = CallError.of(error)
    if told.code in _RETRYABLE or told.reason == _NOT_ALLOWED:
        return PeerUnavailable(f"{told.code.name} {told.reason}: {told.message}")
    return PeerRefused(told)

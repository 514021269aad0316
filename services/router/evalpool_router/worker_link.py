"""The way to one generation of one worker."""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status

from evalpool.channel import open_channel
from evalpool.common.v1.error_reason_pb2 import ErrorReason
from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.values import Violation
from evalpool.worker.v1 import worker_pb2_grpc
from evalpool_runtime.errors import (
    Aborted,
    AlreadyExists,
    DomainError,
    FailedPrecondition,
    Internal,
    InvalidRequest,
    NotFound,
    reasons,
)

DISPATCH_HEADER = "x-evalpool-dispatch"
"""Tells the worker the dispatch that its results must name."""


class WorkerLink:
    """A channel to a worker, as long as its generation lasts.

    Args:
        endpoint: Where the worker is.
        address: Its address, which tokens for it name.
        generation: The registration that told the endpoint.
        engine_build: The engine's build that the registration told.
        identity: The router's key.
    """

    def __init__(
        self, endpoint: str, address: str, generation: int, engine_build: str, identity: Identity
    ) -> None:
        self.endpoint = endpoint
        self.address = address
        self.generation = generation
        self.engine_build = engine_build
        self._identity = identity
        # Calls are signed one by one below: an interceptor would cost every stream a task. A worker
        # that is back at its endpoint must not wait for the next try to reach the one that died.
        self._channel = open_channel(endpoint, retries=False, own_connection=True)
        self.stub: worker_pb2_grpc.WorkerServiceAsyncStub = worker_pb2_grpc.WorkerServiceStub(
            self._channel
        )

    async def reachable(self) -> bool:
        """Whether there is a connection, or one can be made now."""
        while True:
            state = self._channel.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.READY:
                return True
            if state in (
                grpc.ChannelConnectivity.TRANSIENT_FAILURE,
                grpc.ChannelConnectivity.SHUTDOWN,
            ):
                return False
            await self._channel.wait_for_state_change(state)

    def metadata(self, dispatch: int) -> aio.Metadata:
        """What a call for a dispatch carries."""
        return aio.Metadata(
            ("authorization", f"Bearer {self._identity.reusable_token(self.address)}"),
            (DISPATCH_HEADER, str(dispatch)),
        )

    async def close(self) -> None:
        """Cut the connection; calls on it are cancelled."""
        await self._channel.close()


_PASSED_ON: dict[grpc.StatusCode, type[DomainError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.INTERNAL: Internal,
}
_OWN_TROUBLE = frozenset(
    {
        reasons.ERROR_REASON_MODEL_FETCH_FAILED,
        reasons.ERROR_REASON_MODEL_LOAD_FAILED,
        reasons.ERROR_REASON_ENGINE_FAILED,
        reasons.ERROR_REASON_NO_WORKER,
    }
)
_REFUSES_US = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


def is_busy(error: aio.AioRpcError) -> bool:
    """Whether the worker has no slot; gRPC itself uses the same code for messages too large."""
    info, _ = _details(error)
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and info is not None


def broke_off(error: aio.AioRpcError) -> bool:
    """Whether the connection broke, as it does when the worker's process dies."""
    info, _ = _details(error)
    return error.code() is grpc.StatusCode.UNAVAILABLE and info is None


def refuses_us(error: aio.AioRpcError) -> bool:
    """Whether the worker does not take work from this router at all."""
    return error.code() in _REFUSES_US


def as_a_refusal(error: aio.AioRpcError, worker: str) -> DomainError:
    """What to tell the caller of a worker that does not take work from this router."""
    return FailedPrecondition(
        reasons.ERROR_REASON_NO_WORKER,
        f"the worker {worker} refuses work from this router ({error.code().name}: "
        f"{error.details() or 'without a word why'}); let its operator check which router it is "
        "told to serve",
    )


def is_own_trouble(error: DomainError) -> bool:
    """Whether an error may be this one worker's: another might do better."""
    return error.reason in _OWN_TROUBLE


def as_an_error(failure: inference_pb2.QuestionFailure) -> DomainError:
    """What a worker says of a question that another attempt may answer."""
    name = f"ERROR_REASON_{failure.reason_code}"
    known = name in ErrorReason.keys()  # noqa: SIM118
    reason = ErrorReason.Value(name) if known else reasons.ERROR_REASON_ENGINE_FAILED
    return Internal(reason, failure.message or "the worker could not score the question")


def as_the_requests_error(error: aio.AioRpcError) -> DomainError | None:
    """The error to pass on to the caller; None where the worker, not the request, is at fault."""
    kind = _PASSED_ON.get(error.code())
    info, violations = _details(error)
    if kind is None or info is None:
        return None
    reason = ErrorReason.Value(f"ERROR_REASON_{info.reason}")
    if reason == reasons.ERROR_REASON_INTERNAL:
        return None
    message = error.details() or "the worker refused the request"
    passed_on = (
        InvalidRequest(violations, reason=reason, message=message)
        if kind is InvalidRequest
        else kind(reason, message)
    )
    # Not as arguments: a worker may call its values whatever it likes.
    passed_on.metadata.update(info.metadata)
    return passed_on


def _details(
    error: aio.AioRpcError,
) -> tuple[error_details_pb2.ErrorInfo | None, list[Violation]]:
    try:
        # An error of grpc.aio has what this asks of a call.
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:
        # The trailers do not match the status: whoever sent that is no worker of ours.
        return None, []
    info, violations = None, []
    for detail in status.details if status is not None else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            found = error_details_pb2.ErrorInfo()
            detail.Unpack(found)
            if f"ERROR_REASON_{found.reason}" in ErrorReason.keys():  # noqa: SIM118
                info = found
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad_request = error_details_pb2.BadRequest()
            detail.Unpack(bad_request)
            violations = [Violation(v.field, v.description) for v in bad_request.field_violations]
    return info, violations

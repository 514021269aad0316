"""Every call through the real server: errors, streams, cancellation, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio

from evalpool.errors import CallError
from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool.values import InvalidFields, Violation
from evalpool_runtime.errors import NotFound, ResourceExhausted, reasons
from evalpool_runtime.testing import ServiceUnderTest
from tests.runtime.calls import balance, handled, metric, refusal
from tests.runtime.small_service import GRPC_SERVICE, SmallServicer

SECRET = "password=hunter2"


async def test_a_domain_error_becomes_its_status_with_its_details(
    stub: token_pb2_grpc.TokenServiceAsyncStub, servicer: SmallServicer
) -> None:
    async def fail(_request: Any) -> None:
        raise ResourceExhausted(
            reasons.ERROR_REASON_INVALID_FIELD, "too much – wait", retry_after=2.5, limit="3"
        )

    servicer.behaviour = fail
    error = await refusal(balance(stub))

    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.message == "too much – wait"
    assert error.metadata == {"limit": "3"}
    assert error.retry_after == 2.5


async def test_every_field_in_violation_is_named(
    stub: token_pb2_grpc.TokenServiceAsyncStub, servicer: SmallServicer
) -> None:
    violations = (Violation("a", "it is empty"), Violation("b[1].c", "it is 7; give 1 to 3"))

    async def fail(_request: Any) -> None:
        raise InvalidFields(violations)

    servicer.behaviour = fail
    error = await refusal(balance(stub))

    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.violations == violations


async def test_an_error_with_thousands_of_violations_still_arrives(
    stub: token_pb2_grpc.TokenServiceAsyncStub, servicer: SmallServicer
) -> None:
    async def fail(_request: Any) -> None:
        raise InvalidFields(Violation(f"rows[{n}].answer", "ü" * 2000) for n in range(5000))

    servicer.behaviour = fail
    error = await refusal(balance(stub))

    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.violations[0].field == "rows[0].answer"
    shown = len(error.violations) - 1
    assert error.violations[-1].description == f"{5000 - shown} more fields break their rules"


async def test_an_unforeseen_exception_tells_an_id_and_nothing_else(
    stub: token_pb2_grpc.TokenServiceAsyncStub,
    servicer: SmallServicer,
    service: ServiceUnderTest,
) -> None:
    async def fail(_request: Any) -> None:
        raise KeyError(SECRET)

    servicer.behaviour = fail
    with pytest.raises(aio.AioRpcError) as caught:
        await balance(stub)

    error = CallError.of(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert len(error.metadata["error_id"]) == 32
    assert error.metadata["error_id"] in error.message
    everything = repr(caught.value) + repr(caught.value.trailing_metadata())
    assert "hunter2" not in everything
    assert "KeyError" not in everything
    assert handled(service.running.runtime.metrics, "GetBalance", "INTERNAL") == 1


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ],
)
async def test_a_peer_that_is_out_of_reach_makes_the_call_unavailable(
    stub: token_pb2_grpc.TokenServiceAsyncStub, servicer: SmallServicer, code: grpc.StatusCode
) -> None:
    async def fail(_request: Any) -> None:
        raise aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), details=SECRET)

    servicer.behaviour = fail
    error = await refusal(balance(stub))

    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    assert error.retry_after == 1.0
    assert "hunter2" not in error.message


async def test_any_other_error_of_a_peer_is_our_failure(
    stub: token_pb2_grpc.TokenServiceAsyncStub, servicer: SmallServicer
) -> None:
    async def fail(_request: Any) -> None:
        raise aio.AioRpcError(
            grpc.StatusCode.PERMISSION_DENIED, aio.Metadata(), aio.Metadata(), details=SECRET
        )

    servicer.behaviour = fail
    error = await refusal(balance(stub))

    assert error.code is grpc.StatusCode.INTERNAL
    assert "hunter2" not in error.message


async def test_a_stream_that_fails_midway_gives_what_it_had_and_then_the_error(
    stub: token_pb2_grpc.TokenServiceAsyncStub, servicer: SmallServicer
) -> None:
    async def two_and_fail(_request: Any) -> AsyncIterator[token_pb2.WatchNoticesResponse]:
        yield token_pb2.WatchNoticesResponse()
        yield token_pb2.WatchNoticesResponse()
        raise NotFound(reasons.ERROR_REASON_INVALID_FIELD, "gone")

    servicer.stream = two_and_fail
    call = stub.WatchNotices(token_pb2.WatchNoticesRequest())
    for _ in range(2):
        assert isinstance(await call.read(), token_pb2.WatchNoticesResponse)
    with pytest.raises(aio.AioRpcError) as caught:
        await call.read()

    assert CallError.of(caught.value).code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("begun", [False, True])
async def test_a_caller_that_goes_away_ends_the_handler(
    stub: token_pb2_grpc.TokenServiceAsyncStub,
    servicer: SmallServicer,
    service: ServiceUnderTest,
    begun: bool,
) -> None:
    waiting = asyncio.Event()

    async def endless(_request: Any) -> AsyncIterator[token_pb2.WatchNoticesResponse]:
        if begun:
            yield token_pb2.WatchNoticesResponse()
        waiting.set()
        await asyncio.Event().wait()

    servicer.stream = endless
    call = stub.WatchNotices(token_pb2.WatchNoticesRequest())
    if begun:
        await call.read()
    await waiting.wait()

    call.cancel()
    await servicer.left.wait()

    registry = service.running.runtime.metrics
    # The call is counted right after its handler has been left.
    while not handled(registry, "WatchNotices", "CANCELLED", "server_stream"):  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert metric(registry, "evalpool_calls_in_flight", "WatchNotices", "server_stream") == 0


async def test_a_caller_that_goes_away_while_much_is_sent_ends_the_handler(
    stub: token_pb2_grpc.TokenServiceAsyncStub, servicer: SmallServicer
) -> None:
    async def flood(_request: Any) -> AsyncIterator[token_pb2.WatchNoticesResponse]:
        while True:
            yield token_pb2.WatchNoticesResponse()

    servicer.stream = flood
    call = stub.WatchNotices(token_pb2.WatchNoticesRequest())
    await call.read()

    call.cancel()

    await servicer.left.wait()


async def test_a_deadline_reaches_the_handler(
    stub: token_pb2_grpc.TokenServiceAsyncStub,
    servicer: SmallServicer,
    service: ServiceUnderTest,
) -> None:
    ended = asyncio.Event()

    async def wait(_request: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    servicer.behaviour = wait
    with pytest.raises(aio.AioRpcError) as caught:
        await stub.GetBalance(token_pb2.GetBalanceRequest(), timeout=0.2)

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await ended.wait()
    registry = service.running.runtime.metrics
    # The call is counted right after its handler has been left.
    while not handled(registry, "GetBalance", "DEADLINE_EXCEEDED"):  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_calls_are_counted_by_their_codes(
    stub: token_pb2_grpc.TokenServiceAsyncStub,
    anonymous: token_pb2_grpc.TokenServiceAsyncStub,
    service: ServiceUnderTest,
) -> None:
    for _ in range(3):
        await balance(stub)
    await refusal(balance(anonymous))

    registry = service.running.runtime.metrics
    assert handled(registry, "GetBalance", "OK") == 3
    assert handled(registry, "GetBalance", "UNAUTHENTICATED") == 1
    assert metric(registry, "grpc_server_started_total", "GetBalance") == 4
    assert metric(registry, "evalpool_calls_in_flight", "GetBalance") == 0
    assert metric(registry, "grpc_server_handling_seconds_count", "GetBalance") == 4


async def test_the_callers_request_id_is_the_calls(
    stub: token_pb2_grpc.TokenServiceAsyncStub, servicer: SmallServicer
) -> None:
    await balance(stub, ("x-request-id", "mine"))
    await balance(stub)
    assert servicer.calls[0].request_id == "mine"
    assert len(servicer.calls[1].request_id) == 32


async def test_an_unknown_method_of_a_known_service_is_unimplemented(
    service: ServiceUnderTest,
) -> None:
    async with service.channel(Identity.generate()) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{GRPC_SERVICE}/Steal")(b"")  # type: ignore[arg-type]
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

"""Who may call: identity and access through the real server."""

from __future__ import annotations

import grpc
import pytest
from grpc import aio

from evalpool.errors import CallError
from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool_runtime.testing import ServiceUnderTest
from tests.runtime.calls import balance, handled, refusal
from tests.runtime.hostile_tokens import Token
from tests.runtime.small_service import GRPC_SERVICE, UNLISTED, SmallServicer


async def test_a_signed_call_reaches_the_handler_with_its_caller(
    service: ServiceUnderTest, servicer: SmallServicer
) -> None:
    person = Identity.generate()
    async with service.channel(person) as channel:
        assert await balance(token_pb2_grpc.TokenServiceStub(channel)) == "5"

    (call,) = servicer.calls
    assert call.address == person.address
    assert call.method == f"/{GRPC_SERVICE}/GetBalance"
    assert len(call.jti) >= 8
    assert not call.is_operator
    assert call.request == token_pb2.GetBalanceRequest()


async def test_the_operators_calls_are_known_as_such(
    service: ServiceUnderTest, servicer: SmallServicer
) -> None:
    async with service.channel(service.operator) as channel:
        await balance(token_pb2_grpc.TokenServiceStub(channel))
    assert servicer.calls[0].is_operator


async def test_public_methods_answer_without_a_token(
    anonymous: token_pb2_grpc.TokenServiceAsyncStub, servicer: SmallServicer
) -> None:
    assert (await anonymous.GetInfo(token_pb2.GetInfoRequest())).name == "small"
    assert servicer.calls[0].address == ""


async def test_a_call_without_a_token_is_unauthenticated(
    anonymous: token_pb2_grpc.TokenServiceAsyncStub, servicer: SmallServicer
) -> None:
    error = await refusal(balance(anonymous))

    assert error.code is grpc.StatusCode.UNAUTHENTICATED
    assert error.reason == "TOKEN_MISSING"
    assert "evalpool wallet token" in error.message
    assert servicer.calls == []


async def test_an_expired_token_is_unauthenticated(
    anonymous: token_pb2_grpc.TokenServiceAsyncStub, service: ServiceUnderTest
) -> None:
    token = Identity.generate().token(service.address, now=lambda: 1_700_000_000)

    error = await refusal(balance(anonymous, ("authorization", f"Bearer {token}")))

    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")


async def test_a_token_for_another_server_is_unauthenticated(
    anonymous: token_pb2_grpc.TokenServiceAsyncStub, service: ServiceUnderTest
) -> None:
    other = Identity.generate()

    error = await refusal(
        balance(anonymous, ("authorization", f"Bearer {other.token(other.address)}"))
    )

    assert error.reason == "TOKEN_FOR_ANOTHER_SERVER"
    assert error.metadata == {"address": service.address}


async def test_a_token_signed_by_another_key_is_unauthenticated(
    anonymous: token_pb2_grpc.TokenServiceAsyncStub, service: ServiceUnderTest
) -> None:
    token = Token(service.address)
    token.sign = Token(service.address).key.sign

    error = await refusal(balance(anonymous, ("authorization", f"Bearer {token.compact()}")))

    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_a_stranger_may_not_call_the_operators_methods(
    stub: token_pb2_grpc.TokenServiceAsyncStub,
) -> None:
    error = await refusal(stub.Mint(token_pb2.MintRequest()))

    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED")
    assert "the operator" in error.message


async def test_a_served_method_that_is_not_in_the_table_is_refused(
    service: ServiceUnderTest,
) -> None:
    async with service.channel(service.operator) as channel:
        error = await refusal(channel.unary_unary(UNLISTED)(b""))  # type: ignore[arg-type]
    assert error.code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_refused_stream_reaches_no_handler(
    anonymous: token_pb2_grpc.TokenServiceAsyncStub,
    servicer: SmallServicer,
    service: ServiceUnderTest,
) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await anonymous.WatchNotices(token_pb2.WatchNoticesRequest()).read()

    assert CallError.of(caught.value).reason == "TOKEN_MISSING"
    assert servicer.calls == []
    registry = service.running.runtime.metrics
    assert handled(registry, "WatchNotices", "UNAUTHENTICATED", "server_stream") == 1

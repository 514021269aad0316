"""Channels that sign every call."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from grpc import aio

from evalpool.channel import Audience, open_channel
from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2

AUDIENCE = Identity.generate().address
PERSON = Identity.generate()
TOKEN = token_pb2.DESCRIPTOR.services_by_name["TokenService"].full_name


@dataclass
class Mirror:
    """A server that keeps what each call carried.

    Attributes:
        endpoint: Where it is.
        seen: Each call's metadata.
        seconds: How long each call may still take.
        failures: How many calls it refuses as unavailable before it serves one.
    """

    endpoint: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failures: int = 0

    async def note(self, context: aio.ServicerContext[Any, Any]) -> None:
        self.seen.append(dict(context.invocation_metadata() or ()))
        self.seconds.append(context.time_remaining())
        if self.failures:
            self.failures -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE)

    async def one(self, request: Any, context: Any) -> bytes:
        await self.note(context)
        return b"one"

    async def many(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        await self.note(context)
        yield b"many"

    def tokens(self) -> list[str]:
        return [str(each["authorization"]).removeprefix("Bearer ") for each in self.seen]


@pytest.fixture
async def mirror() -> AsyncIterator[Mirror]:
    made = Mirror()
    server = aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "mirror",
                {
                    "uu": grpc.unary_unary_rpc_method_handler(made.one),
                    "us": grpc.unary_stream_rpc_method_handler(made.many),
                    "su": grpc.stream_unary_rpc_method_handler(made.one),
                    "ss": grpc.stream_stream_rpc_method_handler(made.many),
                },
            ),
            grpc.method_handlers_generic_handler(
                TOKEN,
                {
                    "GetBalance": grpc.unary_unary_rpc_method_handler(made.one),
                    "Transfer": grpc.unary_unary_rpc_method_handler(made.one),
                },
            ),
        )
    )
    made.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield made
    await server.stop(None)


async def call(channel: Any, shape: str, **options: Any) -> None:
    """Make a call of a shape: whether request and response are one (u) or many (s)."""
    kinds = {
        "uu": channel.unary_unary,
        "us": channel.unary_stream,
        "su": channel.stream_unary,
        "ss": channel.stream_stream,
    }
    request = b"" if shape[0] == "u" else iter([b""])
    made = kinds[shape](f"/mirror/{shape}")(request, **options)
    if shape[1] == "u":
        await made
    else:
        assert [message async for message in made] == [b"many"]


def claims(token: str) -> dict[str, Any]:
    text = token.split(".")[1]
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return value


SHAPES = ["uu", "us", "su", "ss"]


async def _ask() -> str:
    return AUDIENCE


@pytest.fixture(params=[AUDIENCE, _ask], ids=["known", "asked for"])
def audience(request: pytest.FixtureRequest) -> Audience:
    """The server's address, or what finds it out."""
    given: Audience = request.param
    return given


@pytest.mark.parametrize("shape", SHAPES)
async def test_every_call_has_a_token_of_its_own_for_the_server(
    mirror: Mirror, audience: Audience, shape: str
) -> None:
    async with open_channel(mirror.endpoint, PERSON, audience) as channel:
        for _ in range(3):
            await call(channel, shape)

    found = [claims(token) for token in mirror.tokens()]
    assert [each["aud"] for each in found] == [AUDIENCE] * 3
    assert len({each["jti"] for each in found}) == 3


@pytest.mark.parametrize("shape", SHAPES)
async def test_without_an_identity_calls_go_without_a_token(mirror: Mirror, shape: str) -> None:
    async with open_channel(mirror.endpoint) as channel:
        await call(channel, shape)
    assert "authorization" not in mirror.seen[0]


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_servers_address_is_found_out_at_the_first_call(
    mirror: Mirror, shape: str
) -> None:
    asked = []

    async def ask() -> str:
        asked.append(1)
        return AUDIENCE

    audience: Audience = ask
    async with open_channel(mirror.endpoint, PERSON, audience) as channel:
        assert not asked
        await call(channel, shape)
    assert claims(mirror.tokens()[0])["aud"] == AUDIENCE


async def test_a_token_that_the_caller_brings_is_kept_and_so_is_other_metadata(
    mirror: Mirror, audience: Audience
) -> None:
    async with open_channel(mirror.endpoint, PERSON, audience) as channel:
        await call(channel, "uu", metadata=(("authorization", "Bearer mine"), ("x-a", "1")))
    assert mirror.tokens() == ["mine"]
    assert mirror.seen[0]["x-a"] == "1"


@pytest.mark.parametrize(("shape", "seconds"), [("uu", 50), ("su", 50), ("us", 500), ("ss", 500)])
async def test_calls_without_a_deadline_get_one(
    mirror: Mirror, audience: Audience, shape: str, seconds: int
) -> None:
    async with open_channel(
        mirror.endpoint, PERSON, audience, deadline=50, stream_deadline=500
    ) as channel:
        await call(channel, shape)
        await call(channel, shape, timeout=5000)
    by_default, by_caller = mirror.seconds
    # On its way a deadline is rounded up, by less than a second.
    assert 0 < by_default < seconds + 1
    assert by_caller > 500


async def test_a_try_of_the_transport_carries_the_same_token(
    mirror: Mirror, audience: Audience
) -> None:
    """So that the server can tell it from another call."""
    mirror.failures = 2
    async with open_channel(mirror.endpoint, PERSON, audience) as channel:
        await call(channel, "uu")
    assert len(mirror.seen) == 3
    assert len(set(mirror.tokens())) == 1


async def test_without_retries_a_call_is_made_once(mirror: Mirror) -> None:
    mirror.failures = 1
    async with open_channel(mirror.endpoint, PERSON, AUDIENCE, retries=False) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await call(channel, "uu")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(mirror.seen) == 1


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_failure_to_find_out_the_address_is_the_calls_failure(
    mirror: Mirror, shape: str
) -> None:
    async def ask() -> str:
        raise aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata())

    async with open_channel(mirror.endpoint, PERSON, ask) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await call(channel, shape)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert mirror.seen == []


async def test_calls_that_change_nothing_share_a_token_and_calls_with_an_effect_do_not(
    mirror: Mirror, audience: Audience
) -> None:
    async with open_channel(mirror.endpoint, PERSON, audience) as channel:
        for method in ("GetBalance", "GetBalance", "Transfer", "Transfer", "GetBalance"):
            made: Any = channel.unary_unary(f"/{TOKEN}/{method}")
            await made(b"")
    read, again, first, second, once_more = mirror.tokens()
    assert read == again == once_more
    assert len({read, first, second}) == 3

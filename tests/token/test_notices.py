"""Notices over real gRPC: streams from a cursor."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from grpc import StatusCode

from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool_runtime.testing import running
from evalpool_token.service import SERVICE
from tests.refusals import refusal
from tests.token.ledger_harness import Ledger, transfer


async def read(stream: Any) -> token_pb2.WatchNoticesResponse:
    message = await stream.read()
    assert isinstance(message, token_pb2.WatchNoticesResponse)
    return message


async def test_a_watch_goes_on_from_its_cursor_and_wakes_at_a_commit(ledger: Ledger) -> None:
    _, alice = await ledger.rich()
    bob = Identity.generate()
    from_bob = await ledger.stub(bob)
    for number in range(3):
        await alice.Transfer(transfer(bob, "1", f"r{number}"))
    first = from_bob.WatchNotices(token_pb2.WatchNoticesRequest())
    cursor = (await read(first)).cursor
    first.cancel()

    second = from_bob.WatchNotices(token_pb2.WatchNoticesRequest(after_sequence=cursor))
    seen = [(await read(second)).notice.transfer.sequence for _ in range(2)]
    waiting = asyncio.ensure_future(read(second))
    await alice.Transfer(transfer(bob, "7", "r3"))
    last = await waiting

    assert seen == [cursor + 1, cursor + 2]
    assert last.notice.transfer.quantity == "7"
    second.cancel()


async def test_a_watch_ends_with_unavailable_when_the_service_stops(tmp_path: Path) -> None:
    person = Identity.generate()
    async with running(SERVICE, tmp_path) as service, service.channel(person) as channel:
        stub = token_pb2_grpc.TokenServiceStub(channel)
        watch = stub.WatchNotices(token_pb2.WatchNoticesRequest())
        await stub.GetBalance(token_pb2.GetBalanceRequest())
        reading = asyncio.ensure_future(watch.read())
        service.running.runtime.stopping.set()
        await refusal(reading, StatusCode.UNAVAILABLE, "UNAVAILABLE")


async def test_a_watch_that_is_current_tells_how_far_it_has_seen(ledger: Ledger) -> None:
    _, alice = await ledger.rich()
    await ledger.rich()
    await ledger.rich()

    messages = [
        message
        async for message in alice.WatchNotices(token_pb2.WatchNoticesRequest(until_current=True))
    ]

    assert [(m.HasField("notice"), m.cursor) for m in messages] == [(True, 1), (False, 3)]

"""Paid inference whose router, and whose ledger, are processes that are killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from sqlite3 import connect
from uuid import uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import aio

from evalpool.channel import open_channel
from evalpool.identity import Identity
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from tests.router.cut_line import CutLine
from tests.router.market import MONEY, PRICES, USED
from tests.router.router_harness import infer, text_of
from tests.router.worker_double import WorkerDouble
from tests.served import Served
from tests.waiting import until

CAPTURED = token_pb2.HOLD_STATE_CAPTURED
RELEASED = token_pb2.HOLD_STATE_RELEASED

pytestmark = pytest.mark.slow


class Market:
    """A ledger and a router with prices as processes, a worker, and a caller with money.

    Attributes:
        token: The ledger.
        router: The router.
        line: What the router reaches the ledger by.
        worker: The worker, which answers at once.
        payer: Who has money.
    """

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.token = Served("token", directory / "token")
        self.router = Served("router", directory / "router")
        self.payer = Identity.generate()
        self.line: CutLine
        self.worker: WorkerDouble
        self._stack = stack

    async def start(self) -> None:
        self._stack.push_async_callback(self.token.kill)
        self._stack.push_async_callback(self.router.kill)
        await self.token.start()
        self.line = await self._stack.enter_async_context(CutLine(self.token.endpoint))
        self.worker = await self._stack.enter_async_context(WorkerDouble.new())
        await (await self.ledger(self.token.operator)).Mint(
            token_pb2.MintRequest(
                recipient=self.payer.address, quantity=str(MONEY), request_id="mint"
            )
        )
        await self.start_router()

    async def start_router(self) -> None:
        await self.router.start(
            *("--token-endpoint", self.line.endpoint),
            *("--token-address", self.token.identity.address),
            *("--admitted-workers", self.worker.address),
            *("--ledger-seconds", "0.5", "--lease-seconds", "600"),
            *(f"--{name.replace('_', '-')}={fee}" for name, fee in PRICES.items()),
        )
        stub = await self.stub(self.worker.identity)
        await stub.GetPricing(router_pb2.GetPricingRequest(), wait_for_ready=True)
        await self.worker.register(stub)

    async def stub(self, identity: Identity) -> router_pb2_grpc.RouterServiceAsyncStub:
        stub: router_pb2_grpc.RouterServiceAsyncStub = router_pb2_grpc.RouterServiceStub(
            self._channel(self.router, identity)
        )
        return stub

    async def ledger(self, identity: Identity) -> token_pb2_grpc.TokenServiceAsyncStub:
        stub: token_pb2_grpc.TokenServiceAsyncStub = token_pb2_grpc.TokenServiceStub(
            self._channel(self.token, identity)
        )
        return stub

    async def hold(self) -> str:
        """Units for one request, as many as it may cost and more."""
        response = await (await self.ledger(self.payer)).Hold(
            token_pb2.HoldRequest(
                recipient=self.router.identity.address,
                quantity="10000",
                time_to_live=Duration(seconds=100_000),
                request_id=str(uuid4()),
            )
        )
        return response.hold.id

    async def look(self, hold: str) -> token_pb2.HeldUnits:
        """The hold as it is."""
        stub = await self.ledger(self.payer)
        # The channel may have been left without a server for a while.
        request = token_pb2.GetHoldRequest(id=hold)
        return (await stub.GetHold(request, wait_for_ready=True)).hold

    async def settled(self, hold: str) -> tuple[int, int]:
        """What has become of a hold, once it is no longer open, and what was captured."""
        found = await until(
            lambda: self.look(hold), lambda held: held.state != token_pb2.HOLD_STATE_OPEN
        )
        return found.state, int(found.captured)

    async def balances(self) -> tuple[int, int]:
        """What the payer has, and what the router."""
        found = []
        for each in (self.payer, self.router.identity):
            stub = await self.ledger(each)
            found.append(int((await stub.GetBalance(token_pb2.GetBalanceRequest())).balance))
        return found[0], found[1]

    async def still_unsettled(self) -> int:
        """The same as `unsettled`, to wait for."""
        return self.unsettled()

    def unsettled(self) -> int:
        """Charges that the router does not know to be done, as its database says."""
        with closing(connect(self.router.data / "router.db")) as database:
            (count,) = database.execute(
                "SELECT count(*) FROM charges WHERE settle_time IS NULL"
            ).fetchone()
            return int(count)

    def _channel(self, service: Served, identity: Identity) -> aio.Channel:
        channel = open_channel(service.endpoint, identity, service.identity.address)
        self._stack.push_async_callback(channel.close)
        return channel


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Market]:
    async with AsyncExitStack() as stack:
        made = Market(tmp_path, stack)
        await made.start()
        yield made


async def test_what_was_used_is_captured_once_though_the_router_dies_before_it_can_ask(
    market: Market,
) -> None:
    hold = await market.hold()
    market.worker.open.clear()
    answer = asyncio.create_task(text_of(await market.stub(market.payer), infer(hold=hold)))
    await market.worker.reached.wait()
    # From here on the ledger is away: what is decided cannot be carried out.
    await market.token.kill()
    market.worker.open.set()
    assert await answer == "Paris."
    await market.router.kill()
    assert market.unsettled() == 1
    # Once more, between two of its own tries.
    await market.start_router()
    await market.router.kill()
    assert market.unsettled() == 1
    await market.token.start()
    assert (await market.look(hold)).state == token_pb2.HOLD_STATE_OPEN

    await market.start_router()

    assert await market.settled(hold) == (CAPTURED, USED)
    assert await market.balances() == (MONEY - USED, USED)


async def test_what_was_used_is_captured_once_though_the_router_dies_before_it_hears_of_it(
    market: Market,
) -> None:
    hold = await market.hold()
    market.worker.open.clear()
    answer = asyncio.create_task(text_of(await market.stub(market.payer), infer(hold=hold)))
    await market.worker.reached.wait()
    market.line.silence()
    market.worker.open.set()
    assert await answer == "Paris."
    assert await market.settled(hold) == (CAPTURED, USED)
    await market.router.kill()
    assert market.unsettled() == 1
    market.line.mend()

    await market.start_router()

    await until(market.still_unsettled, lambda count: count == 0)
    assert await market.settled(hold) == (CAPTURED, USED)
    assert await market.balances() == (MONEY - USED, USED)


async def test_a_request_that_dies_with_the_router_costs_nothing(market: Market) -> None:
    hold = await market.hold()
    market.worker.open.clear()
    market.worker.free = 1
    call = (await market.stub(market.payer)).Infer(infer(hold=hold))
    assert (await anext(aiter(call))).chunk.text == "Par"
    await market.router.kill()
    with pytest.raises(aio.AioRpcError, match="UNAVAILABLE"):
        await anext(aiter(call))
    assert (await market.look(hold)).state == token_pb2.HOLD_STATE_OPEN

    await market.start_router()

    assert await market.settled(hold) == (RELEASED, 0)
    assert await market.balances() == (MONEY, 0)


async def test_of_many_requests_each_is_paid_or_costs_nothing_when_the_router_dies(
    market: Market,
) -> None:
    stub = await market.stub(market.payer)
    holds = [await market.hold() for _ in range(24)]
    answers = [asyncio.create_task(text_of(stub, infer(hold=hold))) for hold in holds]
    await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
    await market.router.kill()
    await asyncio.wait(answers)
    answered = {h for h, a in zip(holds, answers, strict=True) if a.exception() is None}
    assert answered

    await market.start_router()
    await until(market.still_unsettled, lambda count: count == 0)

    found = {hold: await market.look(hold) for hold in holds}
    paid = {hold for hold in holds if found[hold].state == CAPTURED}
    # Who has not had the end of the answer may have had the rest of it.
    assert paid >= answered
    assert {int(found[hold].captured) for hold in paid} == {USED}
    # What the router had not heard of is open still, and returns by itself.
    held = sum(int(h.quantity) for h in found.values() if h.state == token_pb2.HOLD_STATE_OPEN)
    earned = USED * len(paid)
    assert await market.balances() == (MONEY - held - earned, earned)

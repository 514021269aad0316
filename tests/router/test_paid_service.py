"""Paid inference: a real router, a real ledger, and workers that are doubles."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import aio

from evalpool.client import Client
from evalpool.client.payment import hold_for_inference
from evalpool.endpoints import Endpoints
from evalpool.identity import Identity
from evalpool.router.v1 import router_pb2
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool.wallet import AddressBook, Wallets
from evalpool_router import charges
from evalpool_router.hold import Charge, HeldUnits
from evalpool_router.ledger import Ledger, LedgerUnavailable
from evalpool_runtime.testing import ServiceUnderTest, running
from evalpool_token.service import SERVICE as TOKEN
from tests.conftest import OpenDatabase
from tests.router.router_harness import (
    MODEL,
    RouterHarness,
    all_of,
    error_of,
    field_of,
    infer,
    running_router,
    scoring,
    text_of,
)

PRICES = {"base_fee": 5, "token_fee": 2}
USED = 5 + 2 * (7 + 2)


class Market:
    """A ledger, a router with prices, and a caller with money."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.payer = Identity.generate()
        self._directory = directory
        self._stack = stack
        self.ledger: ServiceUnderTest
        self.router_address = Identity.load_or_create(
            directory / "router" / "keys" / "router.json"
        ).address

    async def start(self) -> None:
        self.ledger = await self._stack.enter_async_context(
            running(TOKEN, self._directory / "token")
        )
        await self.pay_with(self.payer)

    async def pay_with(self, payer: Identity) -> None:
        """Let holds be made with this key, which gets money."""
        self.payer = payer
        minter = await self.token(self.ledger.operator)
        await minter.Mint(
            token_pb2.MintRequest(
                recipient=payer.address, quantity="1000000", request_id=payer.address
            )
        )

    def router(self) -> AbstractAsyncContextManager[RouterHarness]:
        return running_router(
            self._directory / "router",
            token_endpoint=self.ledger.endpoint,
            token_address=self.ledger.address,
            **PRICES,
        )

    async def token(self, identity: Identity) -> token_pb2_grpc.TokenServiceAsyncStub:
        channel = await self._stack.enter_async_context(self.ledger.channel(identity))
        stub: token_pb2_grpc.TokenServiceAsyncStub = token_pb2_grpc.TokenServiceStub(channel)
        return stub

    async def hold(
        self, quantity: int = 100_000, *, seconds: int = 7200, recipient: str = ""
    ) -> str:
        response = await (await self.token(self.payer)).Hold(
            token_pb2.HoldRequest(
                recipient=recipient or self.router_address,
                quantity=str(quantity),
                time_to_live=Duration(seconds=seconds),
                request_id=str(uuid4()),
            )
        )
        return response.hold.id

    async def settled(self, hold: str) -> token_pb2.HeldUnits:
        """The hold, once it is settled."""
        stub = await self.token(self.payer)
        async with asyncio.timeout(30):
            while True:
                found = (await stub.GetHold(token_pb2.GetHoldRequest(id=hold))).hold
                if found.state != token_pb2.HOLD_STATE_OPEN:
                    return found

    async def balance(self) -> int:
        stub = await self.token(self.payer)
        return int((await stub.GetBalance(token_pb2.GetBalanceRequest())).balance)


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Market]:
    async with AsyncExitStack() as stack:
        made = Market(tmp_path, stack)
        await made.start()
        yield made


async def refusal_of(call: Coroutine[Any, Any, object]) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as refusal:
        await call
    assert error_of(refusal.value).reason == "HOLD_REFUSED"
    assert field_of(refusal.value) == "hold"
    return refusal.value


async def test_what_was_used_is_captured_and_the_rest_returns(market: Market) -> None:
    async with market.router() as router:
        await router.worker()
        stub = await router.stub(market.payer)
        hold = await market.hold()
        assert await text_of(stub, infer(hold=hold)) == "Paris."
        settled = await market.settled(hold)
        assert (settled.state, int(settled.captured)) == (token_pb2.HOLD_STATE_CAPTURED, USED)
        assert await market.balance() == 1_000_000 - USED


async def test_the_multiplier_multiplies_the_price_rounded_up(market: Market) -> None:
    async with market.router() as router:
        await router.worker()
        hold = await market.hold()
        await text_of(await router.stub(market.payer), infer(hold=hold, multiplier="1.5"))
        assert int((await market.settled(hold)).captured) == 35  # 23 × 1.5 = 34.5


async def test_questions_are_charged_by_their_tokens(market: Market) -> None:
    async with market.router() as router:
        await market.pay_with(router.dataset)
        await router.worker()
        hold = await market.hold()
        await all_of((await router.stub(market.payer)).ScoreChoices(scoring(3, hold=hold)))
        assert int((await market.settled(hold)).captured) == 5 + 2 * 3 * 5


async def test_an_evaluation_without_a_hold_is_refused_as_unfunded(market: Market) -> None:
    async with market.router() as router:
        await refusal_of(all_of((await router.stub(router.dataset)).ScoreChoices(scoring(3))))


async def test_a_grade_is_charged_for_the_answer_and_the_verdict(market: Market) -> None:
    async with market.router() as router:
        worker = await router.worker()
        worker.answers = ["1", "0"]
        hold = await market.hold()
        await (await router.stub(market.payer)).Evaluate(
            router_pb2.EvaluateRequest(question="Where?", expected_response="Paris", hold=hold)
        )
        assert int((await market.settled(hold)).captured) == 5 + 2 * 2 * (7 + 2)


async def test_a_capture_whose_answer_was_lost_is_not_made_again(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = Ledger.settle

    async def lost(ledger: Ledger, charge: Charge) -> bool:
        await settle(ledger, charge)
        raise LedgerUnavailable("the answer is lost")

    hold = await market.hold()
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "settle", lost)
        async with market.router() as router:
            await router.worker()
            await text_of(await router.stub(market.payer), infer(hold=hold))
            await market.settled(hold)
    async with market.router() as router:
        await router.worker()
        other = await market.hold()
        await text_of(await router.stub(market.payer), infer(hold=other))
        await market.settled(other)
        assert await market.balance() == 1_000_000 - 2 * USED


async def test_a_request_that_went_down_with_the_router_costs_nothing(
    database: OpenDatabase,
) -> None:
    opened = await database("evalpool_router.migrations")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    hold = HeldUnits("h", "payer", "router", 10**38, True, now)
    assert await opened.write(lambda tx: charges.take_up(tx, hold, now))
    assert await opened.read(charges.due) == []
    await opened.write(charges.let_go)
    # What was decided first stands.
    await opened.write(lambda tx: charges.decide(tx, "h", 5))
    assert await opened.read(charges.due) == [Charge("h", 0)]
    await opened.write(lambda tx: charges.settled(tx, "h"))
    assert await opened.read(charges.due) == []
    assert not await opened.write(lambda tx: charges.take_up(tx, hold, now))


async def test_without_a_good_hold_nothing_is_done(market: Market) -> None:
    async with market.router() as router:
        worker = await router.worker()
        stub = await router.stub(market.payer)
        short = await market.hold(10)
        early = await market.hold(seconds=60)
        stray = await market.hold(recipient=Identity.generate().address)
        for hold in ("", "A" * 43, short, early, stray):
            error = await refusal_of(text_of(stub, infer(hold=hold)))
            assert error_of(error).metadata["price"].isdecimal()
        good = await market.hold()
        thief = await router.stub(Identity.generate())
        await refusal_of(text_of(thief, infer(hold=good)))
        assert worker.prompted == []
        await text_of(stub, infer(hold=good))


async def test_a_hold_pays_for_one_request(market: Market) -> None:
    async with market.router() as router:
        worker = await router.worker()
        stub = await router.stub(market.payer)
        hold = await market.hold()
        await text_of(stub, infer(hold=hold))
        await refusal_of(text_of(stub, infer(hold=hold)))
        assert len(worker.prompted) == 1


async def test_a_request_that_fails_costs_nothing(market: Market) -> None:
    async with market.router() as router:
        worker = await router.worker()
        worker.error = (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_TOO_LONG")
        hold = await market.hold()
        with pytest.raises(aio.AioRpcError):
            await text_of(await router.stub(market.payer), infer(hold=hold))
        assert (await market.settled(hold)).state == token_pb2.HOLD_STATE_RELEASED
        assert await market.balance() == 1_000_000


async def test_an_answer_that_is_broken_off_is_charged_as_far_as_it_came(market: Market) -> None:
    async with market.router() as router:
        worker = await router.worker()
        worker.free = 1
        worker.open.clear()
        hold = await market.hold()
        call = (await router.stub(market.payer)).Infer(infer(hold=hold))
        assert (await anext(aiter(call))).chunk.text == "Par"
        call.cancel()
        assert int((await market.settled(hold)).captured) == 5 + 2 * 1


async def test_what_was_decided_is_captured_once_after_the_router_was_killed(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Charge] = []

    async def killed(_self: Ledger, charge: Charge) -> bool:
        asked.append(charge)
        raise LedgerUnavailable("the router is killed before it can ask")

    hold = await market.hold()
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "settle", killed)
        async with market.router() as router:
            await router.worker()
            await text_of(await router.stub(market.payer), infer(hold=hold))
    stub = await market.token(market.payer)
    assert (await stub.GetHold(token_pb2.GetHoldRequest(id=hold))).hold.state == (
        token_pb2.HOLD_STATE_OPEN
    )
    async with market.router():
        assert int((await market.settled(hold)).captured) == USED
    async with market.router():
        assert await market.balance() == 1_000_000 - USED


async def test_prices_are_public(market: Market) -> None:
    async with market.router() as router:
        stub = await router.stub(None)
        told = await stub.GetPricing(router_pb2.GetPricingRequest())
        assert (told.paid, told.base_fee, told.token_fee) == (True, "5", "2")
        assert told.token_address == market.ledger.address


async def test_a_client_holds_for_the_router_and_pays_with_it(
    market: Market, tmp_path: Path
) -> None:
    async with (
        market.router() as router,
        Client(
            market.payer,
            endpoints=Endpoints(token=market.ledger.endpoint, router=router.service.endpoint),
            addresses=AddressBook(tmp_path),
        ) as client,
    ):
        await router.worker()
        hold = await hold_for_inference(client, "100000")
        assert await text_of(client.router, infer(hold=hold.id)) == "Paris."
        assert int((await market.settled(hold.id)).captured) == USED


async def command(*arguments: str) -> tuple[int, str]:
    """Run a command in a process of its own: its status, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from evalpool.cli import main; main()",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    return process.returncode or 0, printed.decode()


async def test_the_command_pays_with_what_it_is_told_to_hold(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with market.router() as router:
        await router.worker()
        monkeypatch.setenv("EVALPOOL_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("EVALPOOL_TOKEN", market.ledger.endpoint)
        monkeypatch.setenv("EVALPOOL_ROUTER", router.service.endpoint)
        await market.pay_with(Wallets().new("default"))
        told = ("infer", "Hello", "--model", MODEL, "--multiplier", "2")
        status, printed = await command(*told)
        assert (status, "inference is paid here" in printed) == (1, True)
        status, printed = await command(*told, "--pay", "100000")
        assert (status, "Paris." in printed) == (0, True)
        hold = await market.hold()
        assert (await command(*told, "--hold", hold))[0] == 0
        assert int((await market.settled(hold)).captured) == 2 * USED
        assert (await command(*told, "--hold", hold, "--pay", "1"))[0] == 1

"""Paid inference: a real router, a real ledger, and workers that are doubles."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import partial
from sqlite3 import connect

import grpc
import pytest
from grpc import aio

from evalpool.identity import Identity
from evalpool.router.v1 import router_pb2
from evalpool.token.v1 import token_pb2
from evalpool_router import charges
from evalpool_router.hold import Charge, HeldUnits
from evalpool_router.ledger import Ledger, LedgerUnavailable
from evalpool_runtime.database import Database
from tests.router.market import MONEY, USED, Market, refusal_of
from tests.router.router_harness import (
    RouterHarness,
    all_of,
    error_of,
    infer,
    scoring,
    text_of,
)
from tests.waiting import until

CAPTURED = token_pb2.HOLD_STATE_CAPTURED
RELEASED = token_pb2.HOLD_STATE_RELEASED
EXPIRED = token_pb2.HOLD_STATE_EXPIRED


def figure(router: RouterHarness, name: str, **labels: str) -> float | None:
    """A figure of the router's metrics."""
    registry = router.service.running.runtime.metrics
    return registry.get_sample_value(f"evalpool_router_{name}", labels)


async def pending(router: RouterHarness, count: int) -> None:
    """Wait until the ledger has done all that was decided but so much."""

    async def left() -> float | None:
        return figure(router, "captures_pending")

    await until(left, lambda found: found == count)


@contextmanager
def nothing_is_settled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The ledger tells of holds, and cannot be asked to settle any."""

    async def away(_self: Ledger, _charge: Charge) -> bool:
        raise LedgerUnavailable("the ledger is away")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "settle", away)
        yield


async def test_what_was_used_is_captured_and_the_rest_returns(market: Market) -> None:
    async with market.router() as router:
        await router.worker()
        stub = await router.stub(market.payer)
        hold = await market.hold()
        assert await text_of(stub, infer(hold=hold)) == "Paris."
        settled = await market.settled(hold)
        assert (settled.state, int(settled.captured)) == (CAPTURED, USED)
        assert await market.balance() == MONEY - USED


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
        assert await market.balance() == MONEY - 2 * USED


async def test_without_a_good_hold_nothing_is_done(market: Market) -> None:
    async with market.router() as router:
        worker = await router.worker()
        stub = await router.stub(market.payer)
        short = await market.hold(10)
        early = await market.hold(seconds=86_400)
        stray = await market.hold(recipient=Identity.generate().address)
        for hold in ("", "A" * 43, short, early, stray):
            error = await refusal_of(text_of(stub, infer(hold=hold)))
            assert error_of(error).metadata["price"].isdecimal()
            assert error_of(error).metadata["hold_seconds"] == "87060"  # 600 + a day + a minute
        good = await market.hold()
        thief = await router.stub(Identity.generate())
        await refusal_of(text_of(thief, infer(hold=good)))
        assert worker.prompted == []
        await text_of(stub, infer(hold=good))
        # A hold for another recipient is none that the router may know of.
        expected = {"missing": 1, "unknown": 2, "small": 1, "expires": 1, "holder": 1}
        for flaw, count in expected.items():
            assert figure(router, "holds_refused_total", flaw=flaw) == count


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
        assert (await market.settled(hold)).state == RELEASED
        assert await market.balance() == MONEY


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


async def test_what_was_decided_is_captured_once_after_a_restart(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = await market.hold()
    with nothing_is_settled(monkeypatch):
        async with market.router() as router:
            await router.worker()
            await text_of(await router.stub(market.payer), infer(hold=hold))
            await pending(router, 1)
    assert (await market.look(hold)).state == token_pb2.HOLD_STATE_OPEN
    async with market.router() as router:
        assert int((await market.settled(hold)).captured) == USED
        await pending(router, 0)
        assert figure(router, "holds_settled_total", outcome="captured") == 1.0
        assert figure(router, "captured_units_total") == USED
    async with market.router():
        assert await market.balance() == MONEY - USED


async def test_a_hold_that_is_of_no_use_returns_at_once(market: Market) -> None:
    async with market.router() as router:
        stub = await router.stub(market.payer)
        for hold in (await market.hold(10), await market.hold(seconds=86_400)):
            await refusal_of(text_of(stub, infer(hold=hold)))
            assert (await market.settled(hold)).state == RELEASED
        assert await market.balance() == MONEY


async def test_a_hold_whose_request_went_as_it_was_taken_up_returns(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalpool_router.service.LET_GO_SECONDS", 0.01)
    async with market.router() as router:
        worker = await router.worker()
        worker.open.clear()
        stub = await router.stub(market.payer)
        lasting = await market.hold()
        answer = asyncio.create_task(text_of(stub, infer(hold=lasting)))
        await worker.reached.wait()
        gone = HeldUnits(await market.hold(), "", "", 100_000, True, market.clock.now())
        path = router.service.running.runtime.data_dir / "router.db"
        database = Database.open(f"sqlite:///{path}")
        await database.write(partial(charges.take_up, hold=gone, now=market.clock.now()))
        await database.close()
        market.clock.later = timedelta(seconds=61)

        assert (await market.settled(gone.id)).state == RELEASED
        # One that is under way stays, however long.
        assert (await market.look(lasting)).state == token_pb2.HOLD_STATE_OPEN
        worker.open.set()
        assert await answer == "Paris."
        assert int((await market.settled(lasting)).captured) == USED


async def test_a_charge_that_was_settled_long_ago_is_forgotten(market: Market) -> None:
    async def swept() -> bool:
        registry = router.service.running.runtime.metrics
        name = "evalpool_sweep_last_success_timestamp_seconds"
        return bool(registry.get_sample_value(name, {"name": "old charges"}))

    async def kept() -> int:
        with closing(connect(router.service.running.runtime.data_dir / "router.db")) as database:
            return int(database.execute("SELECT count(*) FROM charges").fetchone()[0])

    async with market.router() as router:
        await router.worker()
        hold = await market.hold()
        await text_of(await router.stub(market.payer), infer(hold=hold))
        await market.settled(hold)
        await pending(router, 0)
    market.clock.later = timedelta(hours=23)
    async with market.router() as router:
        await until(swept, bool)
        assert await kept() == 1
    market.clock.later = timedelta(hours=25)
    async with market.router() as router:
        await until(swept, bool)
        assert await kept() == 0
        stub = await router.stub(market.payer)
        # The ledger tells that it has been captured.
        assert "captured" in str((await refusal_of(text_of(stub, infer(hold=hold)))).details())


async def test_prices_are_public(market: Market) -> None:
    async with market.router() as router:
        stub = await router.stub(None)
        told = await stub.GetPricing(router_pb2.GetPricingRequest())
        assert (told.paid, told.base_fee, told.token_fee) == (True, "5", "2")
        assert told.token_address == market.ledger.address
        # The longest request is one of questions.
        assert told.hold_time.ToTimedelta() == timedelta(hours=1, days=1, minutes=1)


async def test_a_hold_that_lasts_as_long_as_the_refusal_says_is_good(market: Market) -> None:
    async with market.router() as router:
        await router.worker()
        stub = await router.stub(market.payer)
        told = error_of(await refusal_of(text_of(stub, infer()))).metadata
        hold = await market.hold(int(told["price"]), seconds=int(told["hold_seconds"]))
        assert await text_of(stub, infer(hold=hold)) == "Paris."


@pytest.mark.parametrize(
    ("outage", "state", "captured"),
    [(timedelta(hours=24), CAPTURED, USED), (timedelta(hours=25), EXPIRED, 0)],
)
async def test_an_outage_no_longer_than_is_provided_for_loses_no_capture(
    market: Market,
    monkeypatch: pytest.MonkeyPatch,
    outage: timedelta,
    state: token_pb2.HoldState.ValueType,
    captured: int,
) -> None:
    with nothing_is_settled(monkeypatch):
        async with market.router() as router:
            await router.worker()
            stub = await router.stub(market.payer)
            told = error_of(await refusal_of(text_of(stub, infer()))).metadata
            hold = await market.hold(seconds=int(told["hold_seconds"]))
            await text_of(stub, infer(hold=hold))
    market.clock.later = outage
    async with market.router() as router:
        settled = await market.settled(hold)
        assert (settled.state, int(settled.captured)) == (state, captured)
        assert await market.balance() == MONEY - captured
        await pending(router, 0)
        assert figure(router, "captured_units_total") == captured
        assert figure(router, "lost_units_total") == USED - captured

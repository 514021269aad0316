"""Runs on a herd that wants to be paid: a real ledger, and a double of the router."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from evalpool.dataset.v1 import dataset_pb2
from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool_runtime.testing import ServiceUnderTest, running
from evalpool_token.service import SERVICE as TOKEN
from tests.dataset.dataset_harness import (
    MODEL,
    DatasetHarness,
    evaluated,
    json_lines,
    lines,
    running_dataset,
    start,
    until,
)
from tests.dataset.router_double import RouterDouble

QUEUED = dataset_pb2.RUN_STATE_QUEUED
COMPLETE = dataset_pb2.RUN_STATE_COMPLETE
UNFUNDED = dataset_pb2.RUN_STATE_UNFUNDED
LETTER = dataset_pb2.EVALUATOR_LETTER
REFUSED = (grpc.StatusCode.FAILED_PRECONDITION, "HOLD_REFUSED")
AWAY = (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")


class Account:
    """The dataset service's account.

    Attributes:
        ledger: The token service.
    """

    def __init__(self, ledger: ServiceUnderTest, owner: Identity, stack: AsyncExitStack) -> None:
        self.ledger = ledger
        self._owner = owner
        self._stack = stack

    def at(self, ledger: ServiceUnderTest) -> Account:
        """The same at another ledger."""
        return Account(ledger, self._owner, self._stack)

    async def pay_in(self, units: int) -> None:
        stub = await self._stub(self.ledger.operator)
        await stub.Mint(
            token_pb2.MintRequest(
                recipient=self._owner.address, quantity=str(units), request_id=str(uuid4())
            )
        )

    async def holds(self, router: RouterDouble) -> list[tuple[str, int, bool]]:
        """What the router was offered: for whom, how much, whether it lasts as it must."""
        stub = await self._stub(router.identity)
        found = []
        for hold in router.holds:
            held = (await stub.GetHold(token_pb2.GetHoldRequest(id=hold))).hold
            lasts = held.expire_time.seconds - held.create_time.seconds
            found.append((held.recipient, int(held.quantity), lasts == 60))
        return found

    async def held(self) -> int:
        """Units of the account that are held."""
        stub = await self._stub(self._owner)
        return int((await stub.GetBalance(token_pb2.GetBalanceRequest())).held)

    async def _stub(self, identity: Identity) -> token_pb2_grpc.TokenServiceAsyncStub:
        channel = await self._stack.enter_async_context(self.ledger.channel(identity))
        stub: token_pb2_grpc.TokenServiceAsyncStub = token_pb2_grpc.TokenServiceStub(channel)
        return stub


@asynccontextmanager
async def paid_herd(
    directory: Path, **settings: str
) -> AsyncIterator[tuple[DatasetHarness, Account]]:
    """A dataset service whose router wants 7 units a call, and its account, which is empty."""
    owner = Identity.load_or_create(directory / "service" / "keys" / "dataset.json")
    async with (
        AsyncExitStack() as stack,
        running(TOKEN, directory / "token") as ledger,
        RouterDouble.knowing(MODEL) as router,
        running_dataset(
            directory,
            router,
            **{
                "token_endpoint": ledger.endpoint,
                "token_address": ledger.address,
                **settings,
            },
        ) as harness,
    ):
        router.price = 7
        yield harness, Account(ledger, owner, stack)


async def test_each_call_is_paid_by_a_hold_of_the_dataset_services_own(tmp_path: Path) -> None:
    async with paid_herd(tmp_path) as (harness, account):
        await account.pay_in(100)
        stub = await harness.load(lines(3))

        scored = await evaluated(stub)
        replied = await evaluated(stub, evaluator=LETTER)

        assert (scored.state, scored.done, scored.failed) == (COMPLETE, 3, 0)
        assert (replied.state, replied.done, replied.failed) == (COMPLETE, 3, 0)
        router = harness.router
        assert await account.holds(router) == [(router.identity.address, 7, True)] * 4
        assert len(set(router.holds)) == 4


async def test_replies_and_their_grades_are_paid_each(tmp_path: Path) -> None:
    async with paid_herd(tmp_path) as (harness, account):
        await account.pay_in(100)
        router = harness.router
        router.own_models = (MODEL, MODEL)
        rows = [{"question": f"Why {n}?", "expected_response": "So."} for n in range(2)]
        stub = await harness.load(json_lines(rows), kind="open_ended")

        graded = await evaluated(stub)

        assert (graded.state, graded.points) == (COMPLETE, 20)
        assert await account.holds(router) == [(router.identity.address, 7, True)] * 4
        assert len(set(router.holds)) == 4


async def test_a_grade_that_cannot_be_paid_leaves_the_run_unfunded(tmp_path: Path) -> None:
    async with paid_herd(tmp_path) as (harness, account):
        await account.pay_in(7)
        harness.router.own_models = (MODEL, MODEL)
        rows = [{"question": "Why?", "expected_response": "So."}]
        stub = await harness.load(json_lines(rows), kind="open_ended")

        score = await evaluated(stub)
        await account.pay_in(14)

        assert (score.state, score.reason_code) == (UNFUNDED, "HOLD_REFUSED")
        again = await start(stub)
        assert (await until(stub, again.run, COMPLETE)).points == 10


async def test_where_inference_is_free_nothing_is_held_and_nothing_asked_twice(
    tmp_path: Path,
) -> None:
    async with paid_herd(tmp_path) as (harness, account):
        await account.pay_in(100)
        harness.router.price = None
        await evaluated(await harness.load(lines(3)))
        assert (len(harness.router.scored), await account.held()) == (1, 0)


@pytest.mark.parametrize("evaluator", [dataset_pb2.EVALUATOR_LOGLIKELIHOOD, LETTER])
async def test_a_run_waits_as_unfunded_until_the_account_has_enough(
    tmp_path: Path, evaluator: dataset_pb2.Evaluator.ValueType
) -> None:
    async with paid_herd(tmp_path) as (harness, account):
        await account.pay_in(6)
        stub = await harness.load(lines(1))

        score = await evaluated(stub, evaluator=evaluator)
        asked = len(harness.router.scored + harness.router.inferred)
        await stub.Evaluate(dataset_pb2.EvaluateRequest())
        await account.pay_in(1)

        assert (score.state, score.reason_code, score.failed) == (UNFUNDED, "HOLD_REFUSED", 0)
        assert "has 6 units where 7 have to be held" in score.reason
        assert harness.service.address in score.reason
        assert len(harness.router.scored + harness.router.inferred) == asked
        again = await start(stub, evaluator=evaluator)
        assert (await until(stub, again.run, COMPLETE)).done == 1


async def test_a_dataset_service_without_an_account_says_so(tmp_path: Path) -> None:
    async with paid_herd(tmp_path, token_endpoint="", token_address="") as (harness, _):
        score = await evaluated(await harness.load(lines(1)))
        assert (score.state, score.reason_code) == (UNFUNDED, "HOLD_REFUSED")
        assert "--token-endpoint" in score.reason


async def test_a_ledger_that_is_away_is_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as place:
        endpoint = f"127.0.0.1:{place.getsockname()[1]}"
    async with paid_herd(tmp_path, token_endpoint=endpoint) as (harness, account):
        stub = await harness.load(lines(1))
        run = (await start(stub)).run
        async for message in stub.WatchScores(dataset_pb2.WatchScoresRequest(runs=[run])):
            if message.score.reason_code:
                break
        waiting = message.score
        assert (waiting.state, waiting.reason_code) == (QUEUED, "UNAVAILABLE")
        assert waiting.reason == "the token service cannot be asked for a hold"

        key = account.ledger.running.runtime.identity
        async with running(TOKEN, tmp_path / "back", listen=endpoint, identity=key) as back:
            await account.at(back).pay_in(7)
            assert (await until(stub, run, COMPLETE)).done == 1


async def test_a_hold_that_the_router_could_not_judge_pays_for_the_next_call(
    tmp_path: Path,
) -> None:
    async with paid_herd(tmp_path) as (harness, account):
        await account.pay_in(7)
        router = harness.router
        # The channel makes a call four times on its own.
        router.refusals = [AWAY] * 5

        score = await evaluated(await harness.load(lines(3)))

        assert (score.state, score.done) == (COMPLETE, 3)
        assert (len(router.holds), len(set(router.holds))) == (6, 1)


async def test_a_hold_that_is_refused_is_replaced(tmp_path: Path) -> None:
    async with paid_herd(tmp_path) as (harness, account):
        await account.pay_in(21)
        router = harness.router
        router.refusals = [REFUSED] * 2

        score = await evaluated(await harness.load(lines(3)))

        assert (score.state, score.done) == (COMPLETE, 3)
        assert len(set(router.holds)) == 3


async def test_a_herd_that_refuses_every_hold_is_not_offered_more_and_more(
    tmp_path: Path,
) -> None:
    async with paid_herd(tmp_path) as (harness, account):
        await account.pay_in(100)
        harness.router.always = REFUSED

        score = await evaluated(await harness.load(lines(3)))

        assert (score.state, score.reason_code) == (UNFUNDED, "HOLD_REFUSED")
        assert await account.held() == 21

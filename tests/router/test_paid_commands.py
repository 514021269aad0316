"""`evalpool pricing`, `infer` and `chat` against a router with prices, and one without."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from evalpool.client import Client
from evalpool.client.payment import hold_for_inference
from evalpool.endpoints import Endpoints
from evalpool.token.v1 import token_pb2
from evalpool.wallet import AddressBook, Wallets
from tests.router.market import MONEY, USED, Market
from tests.router.router_harness import MODEL, RouterHarness, infer, text_of


async def command(*arguments: str) -> tuple[int, str, str]:
    """Run a command in a process of its own: its status, and what it printed on either stream."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "evalpool",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(b"Where?\nWhen?\n")
    return process.returncode or 0, out.decode(), err.decode()


Home = Callable[[RouterHarness], Awaitable[None]]


@pytest.fixture
def home(market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Gives a user a wallet with money, and lets commands find a router."""

    async def enter(router: RouterHarness) -> None:
        monkeypatch.setenv("EVALPOOL_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("EVALPOOL_TOKEN", market.ledger.endpoint)
        monkeypatch.setenv("EVALPOOL_ROUTER", router.service.endpoint)
        await market.pay_with(Wallets().new("default"))

    return enter


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
        assert await text_of(client.router, infer(hold=hold)) == "Paris."
        assert int((await market.settled(hold)).captured) == USED


async def test_the_command_pays_with_what_it_is_told_to_hold(market: Market, home: Home) -> None:
    async with market.router() as router:
        await router.worker()
        await home(router)
        told = ("infer", "Hello", "--model", MODEL, "--multiplier", "2")
        status, _, err = await command(*told)
        price = 2 * (5 + 2 * (len("Hello") + 256))
        assert status == 1
        assert f"hold: inference is paid here; hold {price} units" in err
        assert f"give the hold's id; --pay {price} does so [HOLD_REFUSED]" in err
        status, out, _ = await command(*told, "--pay", "100000", "-o", "json")
        paid = json.loads(out)
        assert (status, paid["text"]) == (0, "Paris.")
        assert int((await market.settled(paid["hold"])).captured) == 2 * USED
        hold = await market.hold()
        status, out, err = await command(*told, "--hold", hold)
        assert (status, out, hold in err) == (0, "Paris.\n", True)
        assert int((await market.settled(hold)).captured) == 2 * USED
        assert (await command(*told, "--hold", hold, "--pay", "1"))[0] == 1


async def test_each_question_of_a_conversation_is_paid_by_a_hold_of_its_own(
    market: Market, home: Home
) -> None:
    async with market.router() as router:
        await router.worker()
        await home(router)
        told = ("chat", "--model", MODEL)
        status, out, err = await command(*told, "--pay", "100000")
        assert (status, out) == (0, "Paris.\nParis.\n")
        holds = [line.rpartition(" ")[2] for line in err.splitlines()]
        for hold in holds:
            assert int((await market.settled(hold)).captured) == USED
        assert await market.balance() == MONEY - 2 * USED
        hold = await market.hold()
        assert "--hold pays for one question" in (await command(*told, "--hold", hold))[2]
        status, out, _ = await command("chat", "Where?", *told[1:], "--hold", hold)
        assert (status, out) == (0, "Paris.\n")


@pytest.mark.parametrize("asked", [("infer", "Hello"), ("chat", "Hello")])
async def test_a_failure_names_the_hold(market: Market, home: Home, asked: tuple[str, ...]) -> None:
    async with market.router() as router:
        worker = await router.worker()
        await home(router)
        told = (*asked, "--model", MODEL, "-o", "json", "--pay")

        status, _, err = await command(*told, "1")
        refused = json.loads(err)
        assert (status, refused["reason"]) == (1, "HOLD_REFUSED")
        assert refused["hold"] in refused["error"]
        await market.settled(refused["hold"])
        _, shown, _ = await command("token", "hold", refused["hold"])
        assert refused["hold"] in shown
        assert market.router_address in shown
        assert ["state", "released"] in [line.split() for line in shown.splitlines()]

        worker.error = (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_TOO_LONG")
        status, _, err = await command(*told, "100000")
        failed = json.loads(err)
        assert (status, failed["reason"]) == (1, "CONTEXT_TOO_LONG")
        assert failed["error"].endswith(
            f"(hold {failed['hold']}; while that is open, --hold pays with it)"
        )
        assert (await market.settled(failed["hold"])).state == token_pb2.HOLD_STATE_RELEASED
        _, shown, _ = await command("token", "hold", failed["hold"], "-o", "json")
        assert json.loads(shown)["state"] == "HOLD_STATE_RELEASED"


async def test_what_was_held_for_a_request_that_is_refused_pays_for_the_next(
    market: Market, home: Home
) -> None:
    async with market.router() as router:
        await router.worker()
        await home(router)
        told = ("infer", "Hello", "--model", MODEL, "-o", "json")
        _, _, err = await command(*told, "--multiplier", "much", "--pay", "100000")
        hold = json.loads(err)["hold"]
        assert f"hold {hold}; while that is open, --hold pays with it" in json.loads(err)["error"]
        status, out, _ = await command(*told, "--hold", hold)
        assert (status, json.loads(out)["text"]) == (0, "Paris.")
        assert int((await market.settled(hold)).captured) == USED


async def test_a_single_unit_is_written_as_one(market: Market, home: Home) -> None:
    async with market.router(base_fee=1, token_fee=0) as router:
        await home(router)
        shown = [line.split()[:4] for line in (await command("pricing"))[1].splitlines()]
        assert ["a", "request", "1", "unit"] in shown
        assert ["a", "token", "0", "units,"] in shown


async def test_prices_are_shown(market: Market, home: Home) -> None:
    async with market.router() as router:
        await home(router)
        _, out, _ = await command("pricing")
        for shown in ("5 units", "2 units", "of 90060 s (1 day, 1:01:00)", market.ledger.address):
            assert shown in out
        assert json.loads((await command("pricing", "-o", "json"))[1])["hold_time"] == "90060s"


async def test_where_inference_is_free_nothing_is_held(market: Market, home: Home) -> None:
    async with market.router(base_fee=0, token_fee=0) as router:
        await router.worker()
        await home(router)
        assert (await command("pricing"))[1].split() == ["inference", "free"]
        status, out, err = await command("infer", "Hello", "--model", MODEL, "--pay", "1000")
        assert (status, out, "hold" in err) == (0, "Paris.\n", False)
        assert await market.balance() == MONEY

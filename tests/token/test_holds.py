"""Holds over real gRPC: captured, released, expired."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2
from evalpool_runtime.clock import ManualClock
from evalpool_runtime.database import Database
from evalpool_runtime.protobuf import duration
from evalpool_runtime.testing import ServiceUnderTest, running
from evalpool_token import store
from evalpool_token.entries import Account
from evalpool_token.service import SERVICE
from tests.refusals import refusal
from tests.token.ledger_harness import Ledger, balance
from tests.waiting import until


async def test_a_hold_is_captured_once_and_the_rest_returns(ledger: Ledger) -> None:
    _, alice = await ledger.rich(100)
    bob = Identity.generate()
    from_bob = await ledger.stub(bob)
    made = await alice.Hold(
        token_pb2.HoldRequest(
            recipient=bob.address,
            quantity="60",
            time_to_live=duration(timedelta(minutes=5)),
            request_id="h",
        )
    )
    assert made.balance == "40"
    await refusal(
        alice.ReleaseHold(token_pb2.ReleaseHoldRequest(id=made.hold.id)),
        StatusCode.PERMISSION_DENIED,
        "NOT_ALLOWED",
        "id",
    )

    captured = await from_bob.CaptureHold(
        token_pb2.CaptureHoldRequest(id=made.hold.id, quantity="25")
    )

    assert captured.hold.state == token_pb2.HOLD_STATE_CAPTURED
    assert await balance(alice) == 75
    assert await balance(from_bob) == 25
    await refusal(
        from_bob.CaptureHold(token_pb2.CaptureHoldRequest(id=made.hold.id, quantity="1")),
        StatusCode.FAILED_PRECONDITION,
        "HOLD_SETTLED",
        "id",
    )


async def test_an_expired_hold_returns_to_its_holder(tmp_path: Path) -> None:
    clock = ManualClock()
    # The callers' tokens are signed by the machine's clock; the ledger judges holds by its own.
    clock.advance(datetime.now(UTC) - clock.now())
    person, bob = Identity.generate(), Identity.generate()
    async with running(SERVICE, tmp_path, clock=clock) as service, AsyncExitStack() as stack:
        ledger = Ledger(service, stack)
        operator = await ledger.stub(service.operator)
        await operator.Mint(
            token_pb2.MintRequest(recipient=person.address, quantity="10", request_id="m")
        )
        stub = await ledger.stub(person)
        made = await stub.Hold(
            token_pb2.HoldRequest(
                recipient=bob.address,
                quantity="10",
                time_to_live=duration(timedelta(seconds=1)),
                request_id="h",
            )
        )
        clock.advance(timedelta(seconds=2))

        released = await stub.ReleaseHold(token_pb2.ReleaseHoldRequest(id=made.hold.id))

        assert released.hold.state == token_pb2.HOLD_STATE_EXPIRED
        assert await balance(stub) == 10


async def test_a_lapsed_hold_shows_as_returned_to_whoever_asks(tmp_path: Path) -> None:
    clock = ManualClock(datetime.now(UTC))
    async with running(SERVICE, tmp_path, clock=clock) as service, AsyncExitStack() as stack:
        ledger = Ledger(service, stack)
        _, alice = await ledger.rich(10)
        bob = Identity.generate()
        made = await alice.Hold(
            token_pb2.HoldRequest(
                recipient=bob.address,
                quantity="4",
                time_to_live=duration(timedelta(seconds=1)),
                request_id="h",
            )
        )
        before = await alice.GetBalance(token_pb2.GetBalanceRequest())
        clock.advance(timedelta(seconds=1))

        after = await alice.GetBalance(token_pb2.GetBalanceRequest())
        shown = await (await ledger.stub(bob)).GetHold(token_pb2.GetHoldRequest(id=made.hold.id))

        assert (before.balance, before.held) == ("6", "4")
        assert (after.balance, after.held) == ("10", "0")
        assert shown.hold.state == token_pb2.HOLD_STATE_EXPIRED


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep over lapsed holds comes at every turn of the loop, not every few seconds."""
    monkeypatch.setattr("evalpool_token.service.EXPIRE_SECONDS", 0.01)


async def expired(*services: ServiceUnderTest) -> float:
    """Holds that the services have returned because their time had passed."""
    name, labels = "evalpool_token_holds_total", {"kind": "expire"}
    counts = [each.running.runtime.metrics.get_sample_value(name, labels) for each in services]
    return sum(count or 0.0 for count in counts)


async def lapse(ledger: Ledger, clock: ManualClock, holds: int) -> Identity:
    """Make somebody whose holds have all lapsed; late, by a year."""
    holder, stub = await ledger.rich(10 * holds)
    for number in range(holds):
        await stub.Hold(
            token_pb2.HoldRequest(
                recipient=Identity.generate().address,
                quantity="10",
                time_to_live=duration(timedelta(seconds=1)),
                request_id=f"h{number}",
            )
        )
    clock.advance(timedelta(days=365))
    return holder


async def stored(service: ServiceUnderTest, holder: Identity) -> Account:
    """What an account has in the database, without anybody's asking for it."""
    database = Database.open(service.running.runtime.settings.database_url)
    try:
        found, _ = await database.read(partial(store.accounts.read, address=holder.address))
        return found
    finally:
        await database.close()


@pytest.mark.usefixtures("often")
async def test_the_sweep_returns_what_has_lapsed_though_nobody_asks(
    tmp_path: Path, database_url: str
) -> None:
    clock = ManualClock(datetime.now(UTC))
    async with (
        running(SERVICE, tmp_path, clock=clock, database_url=database_url) as service,
        AsyncExitStack() as stack,
    ):
        holder = await lapse(Ledger(service, stack), clock, holds=3)
        await until(lambda: expired(service), lambda count: count >= 3)
        assert await stored(service, holder) == Account(holder.address, balance=30, held=0)


@pytest.mark.usefixtures("often")
async def test_replicas_that_sweep_at_once_return_each_hold_once(
    tmp_path: Path, postgresql_url: str
) -> None:
    clock = ManualClock(datetime.now(UTC))
    key, operator = Identity.generate(), Identity.generate()
    shared: dict[str, Any] = {"clock": clock, "identity": key, "operator": operator}
    async with (
        running(SERVICE, tmp_path / "one", database_url=postgresql_url, **shared) as one,
        running(SERVICE, tmp_path / "another", database_url=postgresql_url, **shared) as another,
        AsyncExitStack() as stack,
    ):
        holder = await lapse(Ledger(one, stack), clock, holds=5)
        await until(lambda: expired(one, another), lambda count: count >= 5)
        assert await expired(one, another) == 5
        assert await stored(one, holder) == Account(holder.address, balance=50, held=0)

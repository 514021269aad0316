"""The token service over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from evalpool.common.v1.service_info_pb2 import Tag
from evalpool.errors import CallError
from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool.transfer_ids import transfer_id
from evalpool_runtime.clock import ManualClock
from evalpool_runtime.protobuf import duration
from evalpool_runtime.testing import ServiceUnderTest, running
from evalpool_token.service import SERVICE
from evalpool_token.store.head import AnotherLedger

if TYPE_CHECKING:
    Stub = token_pb2_grpc.TokenServiceAsyncStub


class Ledger:
    """A running token service and people who have stubs to it."""

    def __init__(self, service: ServiceUnderTest, stack: AsyncExitStack) -> None:
        self.service = service
        self.stack = stack

    async def stub(self, identity: Identity) -> Stub:
        channel = await self.stack.enter_async_context(self.service.channel(identity))
        return token_pb2_grpc.TokenServiceStub(channel)

    async def rich(self, quantity: int = 1000) -> tuple[Identity, Stub]:
        person = Identity.generate()
        operator = await self.stub(self.service.operator)
        await operator.Mint(
            token_pb2.MintRequest(
                recipient=person.address, quantity=str(quantity), request_id=person.address
            )
        )
        return person, await self.stub(person)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with running(SERVICE, tmp_path) as service, AsyncExitStack() as stack:
        yield Ledger(service, stack)


async def refusal(call: Any) -> CallError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return CallError.of(caught.value)


async def read(stream: Any) -> token_pb2.WatchNoticesResponse:
    message = await stream.read()
    assert isinstance(message, token_pb2.WatchNoticesResponse)
    return message


async def balance(stub: Stub) -> int:
    return int((await stub.GetBalance(token_pb2.GetBalanceRequest())).balance)


def transfer(recipient: Identity, quantity: str = "1", request_id: str = "r") -> Any:
    return token_pb2.TransferRequest(
        recipient=recipient.address, quantity=quantity, request_id=request_id
    )


async def test_a_transfer_moves_units_and_tells_both_sides(ledger: Ledger) -> None:
    alice, from_alice = await ledger.rich()
    bob = Identity.generate()
    from_bob = await ledger.stub(bob)

    request = transfer(bob, "300")
    request.tags.append(Tag(name="X-Note", value="it's for you"))
    response = await from_alice.Transfer(request)

    assert response.transfer.id == transfer_id(ledger.service.address, alice.address, "r")
    assert response.balance == "700"
    assert await balance(from_bob) == 300
    notices = [
        message.notice
        async for message in from_bob.WatchNotices(
            token_pb2.WatchNoticesRequest(until_current=True)
        )
    ]
    assert [n.kind for n in notices] == [token_pb2.NOTICE_KIND_CREDIT]
    assert notices[0].transfer.tags[0].value == "it's for you"
    debits = [
        message.notice.kind
        async for message in from_alice.WatchNotices(
            token_pb2.WatchNoticesRequest(until_current=True)
        )
    ]
    assert debits == [token_pb2.NOTICE_KIND_CREDIT, token_pb2.NOTICE_KIND_DEBIT]


@pytest.mark.parametrize(
    "quantity", ["1.5", "-3", "1e3", "0", "", "9" * 40, " 1", "1 ", "1 000", "007", "+1", "١"]
)
async def test_a_quantity_that_is_none_is_refused_and_nothing_moves(
    ledger: Ledger, quantity: str
) -> None:
    _, alice = await ledger.rich()

    error = await refusal(alice.Transfer(transfer(Identity.generate(), quantity)))

    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_FIELD"
    assert [v.field for v in error.violations] == ["quantity"]
    assert await balance(alice) == 1000


async def test_a_transfer_above_the_balance_is_refused_with_both_figures(ledger: Ledger) -> None:
    _, alice = await ledger.rich(10)

    error = await refusal(alice.Transfer(transfer(Identity.generate(), "11")))

    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert error.reason == "INSUFFICIENT_BALANCE"
    assert error.metadata == {"balance": "10", "required": "11"}
    assert await balance(alice) == 10


async def test_all_violations_are_told_at_once(ledger: Ledger) -> None:
    person, stub = await ledger.rich()
    request = token_pb2.TransferRequest(recipient=person.address, quantity="x", request_id="a b")
    request.tags.extend([Tag(name="1x", value="")])

    error = await refusal(stub.Transfer(request))

    assert {v.field for v in error.violations} == {"recipient", "quantity", "tags", "request_id"}


async def test_a_repeat_gets_the_first_result_and_moves_nothing(ledger: Ledger) -> None:
    _, alice = await ledger.rich()
    bob = Identity.generate()
    first = await alice.Transfer(transfer(bob, "10"))
    await alice.Transfer(transfer(bob, "5", "other"))

    again = await alice.Transfer(transfer(bob, "10"))

    assert again == first
    assert await balance(alice) == 985


async def test_a_repeat_with_other_content_is_refused(ledger: Ledger) -> None:
    _, alice = await ledger.rich()
    bob = Identity.generate()
    await alice.Transfer(transfer(bob, "10"))

    error = await refusal(alice.Transfer(transfer(bob, "11")))
    batch = token_pb2.TransferBatchRequest(request_id="r")
    batch.transfers.add(recipient=bob.address, quantity="10")
    as_batch = await refusal(alice.TransferBatch(batch))

    assert error.code is grpc.StatusCode.ALREADY_EXISTS
    assert error.reason == as_batch.reason == "REQUEST_ID_REUSED"
    assert await balance(alice) == 990


async def test_a_refused_request_leaves_its_id_free(ledger: Ledger) -> None:
    _, alice = await ledger.rich(10)
    bob = Identity.generate()
    await refusal(alice.Transfer(transfer(bob, "11")))

    await alice.Transfer(transfer(bob, "9"))

    assert await balance(alice) == 1


async def test_two_senders_of_one_balance_cannot_both_have_it(ledger: Ledger) -> None:
    _, alice = await ledger.rich(100)
    bob = Identity.generate()
    calls = [alice.Transfer(transfer(bob, "30", f"r{n}")) for n in range(10)]

    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 3
    assert await balance(alice) == 10


async def test_a_batch_is_all_or_nothing(ledger: Ledger) -> None:
    _, alice = await ledger.rich(100)
    batch = token_pb2.TransferBatchRequest(request_id="b")
    for _ in range(3):
        batch.transfers.add(recipient=Identity.generate().address, quantity="40")

    error = await refusal(alice.TransferBatch(batch))

    assert error.reason == "INSUFFICIENT_BALANCE"
    assert await balance(alice) == 100
    empty = await refusal(alice.TransferBatch(token_pb2.TransferBatchRequest(request_id="e")))
    assert [v.field for v in empty.violations] == ["transfers"]


async def test_ten_thousand_transfers_commit_in_one_batch(ledger: Ledger) -> None:
    _, alice = await ledger.rich(10_000)
    people = [Identity.generate().address for _ in range(50)]
    batch = token_pb2.TransferBatchRequest(request_id="b")
    for number in range(10_000):
        batch.transfers.add(recipient=people[number % 50], quantity="1")

    response = await alice.TransferBatch(batch)

    assert len({t.id for t in response.transfers}) == 10_000
    assert response.balance == "0"


async def test_only_the_operator_mints(ledger: Ledger) -> None:
    person, alice = await ledger.rich()

    error = await refusal(
        alice.Mint(token_pb2.MintRequest(recipient=person.address, quantity="1", request_id="m"))
    )

    assert error.code is grpc.StatusCode.PERMISSION_DENIED
    supply = await alice.GetTotalSupply(token_pb2.GetTotalSupplyRequest())
    assert supply.total_supply == "1000"


async def test_nobody_sees_the_balance_or_the_transfers_of_another(ledger: Ledger) -> None:
    person, alice = await ledger.rich()
    sent = await alice.Transfer(transfer(Identity.generate()))
    stranger = await ledger.stub(Identity.generate())

    error = await refusal(stranger.GetBalance(token_pb2.GetBalanceRequest(account=person.address)))
    hidden = await refusal(stranger.GetTransfer(token_pb2.GetTransferRequest(id=sent.transfer.id)))

    assert error.code is grpc.StatusCode.PERMISSION_DENIED
    assert hidden.code is grpc.StatusCode.NOT_FOUND
    operator = await ledger.stub(ledger.service.operator)
    seen = await operator.GetBalance(token_pb2.GetBalanceRequest(account=person.address))
    assert seen.balance == "999"


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
        error = await refusal(reading)

    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.reason == "UNAVAILABLE"


async def test_history_comes_in_pages_newest_first(ledger: Ledger) -> None:
    _, alice = await ledger.rich()
    for number in range(5):
        await alice.Transfer(transfer(Identity.generate(), str(number + 1), f"r{number}"))

    quantities: list[str] = []
    page = ""
    while True:
        response = await alice.ListTransfers(
            token_pb2.ListTransfersRequest(page_size=2, page_token=page)
        )
        quantities += [t.quantity for t in response.transfers]
        page = response.next_page_token
        if not page:
            break

    assert quantities == ["5", "4", "3", "2", "1", "1000"]
    error = await refusal(alice.ListTransfers(token_pb2.ListTransfersRequest(page_token="xx")))
    assert error.reason == "INVALID_PAGE_TOKEN"


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    person = Identity.generate()
    async with running(SERVICE, tmp_path) as service, service.channel(service.operator) as channel:
        stub = token_pb2_grpc.TokenServiceStub(channel)
        request = token_pb2.MintRequest(
            recipient=person.address, quantity=str(10**38), request_id="m"
        )
        await stub.Mint(request)
    async with running(SERVICE, tmp_path) as service, service.channel(service.operator) as channel:
        stub = token_pb2_grpc.TokenServiceStub(channel)
        info = await stub.GetInfo(token_pb2.GetInfoRequest())
        assert info.total_supply == str(10**38)
        again = await stub.Mint(request)
        assert again.total_supply == str(10**38)


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
    early = await refusal(alice.ReleaseHold(token_pb2.ReleaseHoldRequest(id=made.hold.id)))
    assert early.code is grpc.StatusCode.PERMISSION_DENIED

    captured = await from_bob.CaptureHold(
        token_pb2.CaptureHoldRequest(id=made.hold.id, quantity="25")
    )

    assert captured.hold.state == token_pb2.HOLD_STATE_CAPTURED
    assert await balance(alice) == 75
    assert await balance(from_bob) == 25
    again = await refusal(
        from_bob.CaptureHold(token_pb2.CaptureHoldRequest(id=made.hold.id, quantity="1"))
    )
    assert again.reason == "HOLD_SETTLED"


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


@pytest.fixture
async def ledger_on_either(tmp_path: Path, database_url: str) -> AsyncIterator[Ledger]:
    async with (
        running(SERVICE, tmp_path, database_url=database_url) as service,
        AsyncExitStack() as stack,
    ):
        yield Ledger(service, stack)


async def test_retries_of_one_call_that_race_get_one_answer(ledger_on_either: Ledger) -> None:
    ledger = ledger_on_either
    alice, _ = await ledger.rich()
    request = transfer(Identity.generate(), "10")
    channel = await ledger.stack.enter_async_context(ledger.service.channel(None))
    stub: Stub = token_pb2_grpc.TokenServiceStub(channel)
    token = (("authorization", f"Bearer {alice.token(ledger.service.address)}"),)

    answers = await asyncio.gather(*(stub.Transfer(request, metadata=token) for _ in range(8)))

    assert all(answer == answers[0] for answer in answers)
    assert answers[0].balance == "990"
    error = await refusal(
        stub.Transfer(transfer(Identity.generate(), "10", "other"), metadata=token)
    )
    assert error.reason == "TOKEN_REPLAYED"


async def test_two_senders_racing_on_either_database_never_overdraw(
    ledger_on_either: Ledger,
) -> None:
    ledger = ledger_on_either
    alice, from_alice = await ledger.rich(100)
    bob, from_bob = await ledger.rich(100)

    outcomes = await asyncio.gather(
        *(from_alice.Transfer(transfer(bob, "30", f"r{n}")) for n in range(8)),
        *(from_bob.Transfer(transfer(alice, "30", f"r{n}")) for n in range(8)),
        return_exceptions=True,
    )

    refused = [CallError.of(o) for o in outcomes if isinstance(o, grpc.aio.AioRpcError)]
    assert {error.reason for error in refused} <= {"INSUFFICIENT_BALANCE"}
    balances = [await balance(from_alice), await balance(from_bob)]
    assert sum(balances) == 200
    assert min(balances) >= 0


async def test_a_mint_repeated_after_others_gets_its_first_answer(ledger: Ledger) -> None:
    operator = await ledger.stub(ledger.service.operator)
    request = token_pb2.MintRequest(
        recipient=ledger.service.operator.address, quantity="5", request_id="m"
    )
    first = await operator.Mint(request)
    await ledger.rich()
    await operator.Burn(token_pb2.BurnRequest(quantity="5", request_id="b"))

    again = await operator.Mint(request)

    assert again == first
    assert first.total_supply == "5"
    assert first.transfer.request_id == "m"


async def test_only_its_author_sees_a_request_id(ledger: Ledger) -> None:
    _, alice = await ledger.rich()
    bob = Identity.generate()
    sent = await alice.Transfer(transfer(bob))
    from_bob = await ledger.stub(bob)

    received = await from_bob.GetTransfer(token_pb2.GetTransferRequest(id=sent.transfer.id))

    assert sent.transfer.request_id == "r"
    assert received.transfer.request_id == ""


async def test_a_batch_of_bad_transfers_is_told_so_within_the_trailers(ledger: Ledger) -> None:
    _, alice = await ledger.rich()
    batch = token_pb2.TransferBatchRequest(request_id="b")
    for _ in range(10_000):
        batch.transfers.add(recipient="\n" * 80, quantity="1.5" * 30)

    error = await refusal(alice.TransferBatch(batch))

    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_FIELD"
    assert error.violations[0].field == "transfers[0].recipient"
    assert await balance(alice) == 1000


async def test_a_hold_of_an_absurd_length_is_refused(ledger: Ledger) -> None:
    _, alice = await ledger.rich()
    request = token_pb2.HoldRequest(
        recipient=Identity.generate().address, quantity="1", request_id="h"
    )
    request.time_to_live.seconds = 10**17

    error = await refusal(alice.Hold(request))

    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in error.violations] == ["time_to_live"]


async def test_a_watch_that_is_current_tells_how_far_it_has_seen(ledger: Ledger) -> None:
    _, alice = await ledger.rich()
    await ledger.rich()
    await ledger.rich()

    messages = [
        message
        async for message in alice.WatchNotices(token_pb2.WatchNoticesRequest(until_current=True))
    ]

    assert [(m.HasField("notice"), m.cursor) for m in messages] == [(True, 1), (False, 3)]


async def test_a_cursor_of_another_ledger_is_refused(ledger: Ledger) -> None:
    _, alice = await ledger.rich()

    error = await refusal(
        alice.WatchNotices(token_pb2.WatchNoticesRequest(after_sequence=2)).read()
    )
    negative = await refusal(
        alice.WatchNotices(token_pb2.WatchNoticesRequest(after_sequence=-1)).read()
    )

    assert error.code is negative.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in error.violations] == ["after_sequence"]


async def test_pages_end_before_a_message_is_too_long(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalpool_token.messages.PAGE_BYTES", 400)
    _, alice = await ledger.rich()
    for number in range(5):
        await alice.Transfer(transfer(Identity.generate(), str(number + 1), f"r{number}"))

    quantities: list[str] = []
    pages = 0
    page = ""
    while pages == 0 or page:
        response = await alice.ListTransfers(token_pb2.ListTransfersRequest(page_token=page))
        quantities += [t.quantity for t in response.transfers]
        page = response.next_page_token
        pages += 1

    assert quantities == ["5", "4", "3", "2", "1", "1000"]
    assert pages == 3


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


async def test_commits_are_counted_once_and_repeats_not(ledger: Ledger) -> None:
    _, alice = await ledger.rich()
    bob = Identity.generate()
    await alice.Transfer(transfer(bob))
    await alice.Transfer(transfer(bob))

    metrics = ledger.service.running.runtime.metrics

    name = "evalpool_token_transfers_total"
    assert metrics.get_sample_value(name, {"kind": "transfer"}) == 1
    assert metrics.get_sample_value(name, {"kind": "mint"}) == 1


async def test_another_key_cannot_go_on_with_a_ledger(tmp_path: Path) -> None:
    async with running(SERVICE, tmp_path):
        pass

    with pytest.raises(AnotherLedger):
        async with running(SERVICE, tmp_path, identity=Identity.generate()):
            pass


async def test_balances_notices_holds_and_request_ids_outlive_a_restart(tmp_path: Path) -> None:
    alice, bob = Identity.generate(), Identity.generate()
    async with running(SERVICE, tmp_path) as service, AsyncExitStack() as stack:
        ledger = Ledger(service, stack)
        operator = await ledger.stub(service.operator)
        await operator.Mint(
            token_pb2.MintRequest(recipient=alice.address, quantity="100", request_id="m")
        )
        from_alice = await ledger.stub(alice)
        sent = await from_alice.Transfer(transfer(bob, "30"))
        held = await from_alice.Hold(
            token_pb2.HoldRequest(
                recipient=bob.address,
                quantity="20",
                time_to_live=duration(timedelta(hours=1)),
                request_id="h",
            )
        )
        head = (await operator.GetInfo(token_pb2.GetInfoRequest())).head_hash

    async with running(SERVICE, tmp_path) as service, AsyncExitStack() as stack:
        ledger = Ledger(service, stack)
        from_alice, from_bob = await ledger.stub(alice), await ledger.stub(bob)
        assert (await from_alice.GetInfo(token_pb2.GetInfoRequest())).head_hash == head
        assert await balance(from_alice) == 50
        assert await from_alice.Transfer(transfer(bob, "30")) == sent
        captured = await from_bob.CaptureHold(
            token_pb2.CaptureHoldRequest(id=held.hold.id, quantity="20")
        )
        assert captured.transfer.sequence == 4
        credits_ = [
            message.notice.transfer.quantity
            async for message in from_bob.WatchNotices(
                token_pb2.WatchNoticesRequest(until_current=True)
            )
        ]
        assert credits_ == ["30", "20"]

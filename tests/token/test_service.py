"""The token service over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from evalpool.common.v1.service_info_pb2 import Tag
from evalpool.errors import CallError
from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool.transfer_ids import transfer_id
from evalpool_runtime.protobuf import duration
from evalpool_runtime.testing import running
from evalpool_token.service import SERVICE
from evalpool_token.store.head import AnotherLedger
from tests.refusals import refusal
from tests.token.ledger_harness import Ledger, balance, transfer


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


async def test_a_repeat_gets_the_first_result_and_moves_nothing(ledger: Ledger) -> None:
    _, alice = await ledger.rich()
    bob = Identity.generate()
    first = await alice.Transfer(transfer(bob, "10"))
    await alice.Transfer(transfer(bob, "5", "other"))

    again = await alice.Transfer(transfer(bob, "10"))

    assert again == first
    assert await balance(alice) == 985


async def test_a_refused_request_leaves_its_id_free(ledger: Ledger) -> None:
    _, alice = await ledger.rich(10)
    bob = Identity.generate()
    await refusal(
        alice.Transfer(transfer(bob, "11")),
        StatusCode.FAILED_PRECONDITION,
        "INSUFFICIENT_BALANCE",
        "quantity",
    )

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

    await refusal(
        alice.TransferBatch(batch),
        StatusCode.FAILED_PRECONDITION,
        "INSUFFICIENT_BALANCE",
        "transfers",
    )

    assert await balance(alice) == 100


async def test_ten_thousand_transfers_commit_in_one_batch(ledger: Ledger) -> None:
    _, alice = await ledger.rich(10_000)
    people = [Identity.generate().address for _ in range(50)]
    batch = token_pb2.TransferBatchRequest(request_id="b")
    for number in range(10_000):
        batch.transfers.add(recipient=people[number % 50], quantity="1")

    response = await alice.TransferBatch(batch)

    assert len({t.id for t in response.transfers}) == 10_000
    assert response.balance == "0"


async def test_nobody_sees_the_balance_or_the_transfers_of_another(ledger: Ledger) -> None:
    person, alice = await ledger.rich()
    sent = await alice.Transfer(transfer(Identity.generate()))
    stranger = await ledger.stub(Identity.generate())

    await refusal(
        stranger.GetBalance(token_pb2.GetBalanceRequest(account=person.address)),
        StatusCode.PERMISSION_DENIED,
        "NOT_ALLOWED",
        "account",
    )
    await refusal(
        stranger.GetTransfer(token_pb2.GetTransferRequest(id=sent.transfer.id)),
        StatusCode.NOT_FOUND,
        "TRANSFER_NOT_FOUND",
        "id",
    )
    operator = await ledger.stub(ledger.service.operator)
    seen = await operator.GetBalance(token_pb2.GetBalanceRequest(account=person.address))
    assert seen.balance == "999"


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
    stub = await ledger.stub(None)
    token = (("authorization", f"Bearer {alice.token(ledger.service.address)}"),)

    answers = await asyncio.gather(*(stub.Transfer(request, metadata=token) for _ in range(8)))

    assert all(answer == answers[0] for answer in answers)
    assert answers[0].balance == "990"
    await refusal(
        stub.Transfer(transfer(Identity.generate(), "10", "other"), metadata=token),
        StatusCode.ALREADY_EXISTS,
        "TOKEN_REPLAYED",
        "authorization",
    )


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

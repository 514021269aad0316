"""Bad input over real gRPC: each gets its code and a sentence with the field; nothing changes."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode

from evalpool.common.v1.service_info_pb2 import Tag
from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2 as pb
from evalpool_runtime.protobuf import duration
from evalpool_runtime.testing import running
from evalpool_token.service import SERVICE
from tests.refusals import BAD_CREDENTIALS, refusal
from tests.token.ledger_harness import Ledger

if TYPE_CHECKING:
    from evalpool.token.v1.token_pb2_grpc import TokenServiceAsyncStub

BALANCE = 1_000
HOUR = duration(timedelta(hours=1))
NOBODY = "A" * 43

QUANTITIES = {
    "a fraction": "1.5",
    "negative": "-3",
    "an exponent": "1e3",
    "zero": "0",
    "empty": "",
    "40 digits": "9" * 40,
    "a space before": " 1",
    "a space after": "1 ",
    "a space within": "1 000",
    "a newline": "1\n",
    "leading zeros": "007",
    "a sign": "+1",
    "other digits": "\u0661",
    "hexadecimal": "0x10",
    "an underscore": "1_000",
}


class Bank:
    """A ledger with somebody who has units and an open hold, and everything that it has stored.

    Attributes:
        ledger: The service.
        alice: Who has units.
        bob: The recipient of her hold.
        hold: The hold's id; of 10 units.
    """

    def __init__(self, ledger: Ledger, database: Path) -> None:
        self.ledger = ledger
        self.alice = Identity.generate()
        self.bob = Identity.generate()
        self.hold = ""
        self._database = database

    async def open(self) -> None:
        operator = await self.stub(self.ledger.service.operator)
        await operator.Mint(
            pb.MintRequest(recipient=self.alice.address, quantity=str(BALANCE), request_id="m")
        )
        alice = await self.stub(self.alice)
        self.hold = (await alice.Hold(self.hold_request("10", "h"))).hold.id

    async def stub(self, identity: Identity | None) -> TokenServiceAsyncStub:
        return await self.ledger.stub(identity)

    def transfer(self, quantity: str = "1", request_id: str = "r", **more: Any) -> Any:
        values = {"recipient": self.bob.address, "quantity": quantity, "request_id": request_id}
        return pb.TransferRequest(**{**values, **more})

    def batch(self, quantity: str = "1", request_id: str = "r") -> pb.TransferBatchRequest:
        request = pb.TransferBatchRequest(request_id=request_id)
        request.transfers.add(recipient=self.bob.address, quantity="1")
        request.transfers.add(recipient=self.bob.address, quantity=quantity)
        return request

    def hold_request(self, quantity: str = "1", request_id: str = "r") -> pb.HoldRequest:
        return pb.HoldRequest(
            recipient=self.bob.address,
            quantity=quantity,
            time_to_live=HOUR,
            request_id=request_id,
        )

    def everything(self) -> list[str]:
        """All that is stored: the log, balances, holds, requests and tokens seen."""
        with sqlite3.connect(f"file:{self._database}?mode=ro", uri=True) as connection:
            return list(connection.iterdump())


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Bank]:
    async with running(SERVICE, tmp_path) as service, AsyncExitStack() as stack:
        made = Bank(Ledger(service, stack), tmp_path / "token.db")
        await made.open()
        yield made


Call = Callable[[Bank, str], Awaitable[Any]]


async def transfers(bank: Bank, quantity: str) -> Any:
    return await (await bank.stub(bank.alice)).Transfer(bank.transfer(quantity))


async def transfers_a_batch(bank: Bank, quantity: str) -> Any:
    return await (await bank.stub(bank.alice)).TransferBatch(bank.batch(quantity))


async def burns(bank: Bank, quantity: str) -> Any:
    request = pb.BurnRequest(quantity=quantity, request_id="r")
    return await (await bank.stub(bank.alice)).Burn(request)


async def mints(bank: Bank, quantity: str) -> Any:
    request = pb.MintRequest(recipient=bank.bob.address, quantity=quantity, request_id="r")
    return await (await bank.stub(bank.ledger.service.operator)).Mint(request)


async def holds(bank: Bank, quantity: str) -> Any:
    return await (await bank.stub(bank.alice)).Hold(bank.hold_request(quantity))


async def captures(bank: Bank, quantity: str) -> Any:
    request = pb.CaptureHoldRequest(id=bank.hold, quantity=quantity)
    return await (await bank.stub(bank.bob)).CaptureHold(request)


WITH_A_QUANTITY: list[tuple[Call, str]] = [
    (transfers, "quantity"),
    (transfers_a_batch, "transfers[1].quantity"),
    (burns, "quantity"),
    (mints, "quantity"),
    (holds, "quantity"),
    (captures, "quantity"),
]


@pytest.mark.parametrize("quantity", QUANTITIES.values(), ids=QUANTITIES.keys())
async def test_a_quantity_that_is_none_is_refused_wherever_one_is_asked_for(
    bank: Bank, quantity: str
) -> None:
    before = bank.everything()
    for call, field in WITH_A_QUANTITY:
        await refusal(call(bank, quantity), StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field)
    assert bank.everything() == before


@pytest.mark.parametrize(
    ("call", "field", "quantity", "metadata"),
    [
        (transfers, "quantity", "991", {"balance": "990", "required": "991"}),
        (transfers_a_batch, "transfers", "990", {"balance": "990", "required": "991"}),
        (burns, "quantity", "991", {"balance": "990", "required": "991"}),
        (holds, "quantity", "9" * 39, {"balance": "990", "required": "9" * 39}),
        (captures, "quantity", "11", {"balance": "10", "required": "11"}),
    ],
)
async def test_more_than_there_is_is_refused_with_both_figures(
    bank: Bank, call: Call, field: str, quantity: str, metadata: dict[str, str]
) -> None:
    before = bank.everything()
    error = await refusal(
        call(bank, quantity), StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_BALANCE", field
    )
    assert error.metadata == metadata
    assert bank.everything() == before


async def test_a_mint_above_the_ledgers_limit_is_refused(bank: Bank) -> None:
    before = bank.everything()
    await refusal(mints(bank, "9" * 39), StatusCode.FAILED_PRECONDITION, "SUPPLY_LIMIT", "quantity")
    assert bank.everything() == before


async def test_the_same_request_id_with_other_content_is_refused(bank: Bank) -> None:
    alice = await bank.stub(bank.alice)
    await alice.Transfer(bank.transfer("10"))
    before = bank.everything()
    for call in (
        alice.Transfer(bank.transfer("11")),
        alice.Transfer(bank.transfer("10", recipient=bank.ledger.service.operator.address)),
        alice.Transfer(bank.transfer("10", tags=[Tag(name="X-Note", value="another")])),
        alice.TransferBatch(bank.batch("10")),
        alice.Hold(bank.hold_request("10")),
        alice.Burn(pb.BurnRequest(quantity="10", request_id="r")),
    ):
        error = await refusal(call, StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED", "request_id")
        assert error.metadata == {"request_id": "r"}
    assert bank.everything() == before


@pytest.mark.parametrize("name", BAD_CREDENTIALS)
async def test_credentials_that_prove_nothing_are_refused(bank: Bank, name: str) -> None:
    unsigned = await bank.stub(None)
    reason, metadata = BAD_CREDENTIALS[name](bank.alice, bank.ledger.service.address)
    before = bank.everything()
    for call in (
        unsigned.Transfer(bank.transfer(), metadata=metadata),
        unsigned.TransferBatch(bank.batch(), metadata=metadata),
        unsigned.Burn(pb.BurnRequest(quantity="1", request_id="r"), metadata=metadata),
        unsigned.Hold(bank.hold_request(), metadata=metadata),
        unsigned.CaptureHold(pb.CaptureHoldRequest(id=bank.hold, quantity="1"), metadata=metadata),
        unsigned.ReleaseHold(pb.ReleaseHoldRequest(id=bank.hold), metadata=metadata),
        unsigned.GetBalance(pb.GetBalanceRequest(), metadata=metadata),
        unsigned.ListTransfers(pb.ListTransfersRequest(), metadata=metadata),
        unsigned.WatchNotices(pb.WatchNoticesRequest(), metadata=metadata).read(),
    ):
        await refusal(call, StatusCode.UNAUTHENTICATED, reason, "authorization")
    assert bank.everything() == before


async def test_only_the_operator_mints(bank: Bank) -> None:
    alice = await bank.stub(bank.alice)
    before = bank.everything()
    await refusal(
        alice.Mint(pb.MintRequest(recipient=bank.alice.address, quantity="1", request_id="r")),
        StatusCode.PERMISSION_DENIED,
        "NOT_ALLOWED",
        "authorization",
    )
    assert bank.everything() == before


async def test_all_violations_of_a_request_are_told_at_once(bank: Bank) -> None:
    alice = await bank.stub(bank.alice)
    before = bank.everything()
    request = bank.transfer(
        "x", "a b", recipient=bank.alice.address, tags=[Tag(name="1x", value="")]
    )
    await refusal(
        alice.Transfer(request),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "tags",
        "recipient",
        "quantity",
        "request_id",
    )
    assert bank.everything() == before


async def test_fields_that_break_their_rule_are_named(bank: Bank) -> None:
    alice = await bank.stub(bank.alice)
    too_long = pb.HoldRequest(recipient=bank.bob.address, quantity="1", request_id="r")
    too_long.time_to_live.seconds = 10**17
    before = bank.everything()
    for call, field in (
        (alice.Transfer(bank.transfer(recipient="bob")), "recipient"),
        (alice.Transfer(bank.transfer(recipient=bank.alice.address)), "recipient"),
        (alice.Transfer(bank.transfer(request_id="")), "request_id"),
        (alice.Transfer(bank.transfer(request_id="x" * 129)), "request_id"),
        (alice.Transfer(bank.transfer(tags=[Tag(name="X-A", value="b" * 1_025)])), "tags"),
        (
            alice.Transfer(bank.transfer(tags=[Tag(name=f"X-{n}", value="") for n in range(33)])),
            "tags",
        ),
        (alice.TransferBatch(pb.TransferBatchRequest(request_id="r")), "transfers"),
        (alice.Hold(too_long), "time_to_live"),
        (alice.GetBalance(pb.GetBalanceRequest(account="bob")), "account"),
        (alice.GetTransfer(pb.GetTransferRequest(id="x")), "id"),
        (alice.GetHold(pb.GetHoldRequest(id="")), "id"),
        (alice.ReleaseHold(pb.ReleaseHoldRequest(id="x")), "id"),
        (alice.CaptureHold(pb.CaptureHoldRequest(id="x", quantity="1")), "id"),
        (alice.ListTransfers(pb.ListTransfersRequest(page_size=1_001)), "page_size"),
        (alice.ListTransfers(pb.ListTransfersRequest(page_size=-1)), "page_size"),
        (alice.WatchNotices(pb.WatchNoticesRequest(after_sequence=-1)).read(), "after_sequence"),
        (alice.WatchNotices(pb.WatchNoticesRequest(after_sequence=99)).read(), "after_sequence"),
    ):
        await refusal(call, StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field)
    await refusal(
        alice.ListTransfers(pb.ListTransfersRequest(page_token="xx")),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_PAGE_TOKEN",
        "page_token",
    )
    assert bank.everything() == before


async def test_what_does_not_exist_or_is_none_of_ones_own_is_not_found(bank: Bank) -> None:
    stranger = await bank.stub(Identity.generate())
    before = bank.everything()
    for hold in (NOBODY, bank.hold):
        for call in (
            stranger.GetHold(pb.GetHoldRequest(id=hold)),
            stranger.CaptureHold(pb.CaptureHoldRequest(id=hold, quantity="1")),
            stranger.ReleaseHold(pb.ReleaseHoldRequest(id=hold)),
        ):
            await refusal(call, StatusCode.NOT_FOUND, "HOLD_NOT_FOUND", "id")
        await refusal(
            stranger.GetTransfer(pb.GetTransferRequest(id=hold)),
            StatusCode.NOT_FOUND,
            "TRANSFER_NOT_FOUND",
            "id",
        )
    assert bank.everything() == before


async def test_a_hold_is_captured_only_by_its_recipient_and_settled_once(bank: Bank) -> None:
    alice, bob = await bank.stub(bank.alice), await bank.stub(bank.bob)
    before = bank.everything()
    await refusal(
        alice.CaptureHold(pb.CaptureHoldRequest(id=bank.hold, quantity="1")),
        StatusCode.PERMISSION_DENIED,
        "NOT_ALLOWED",
        "id",
    )
    assert bank.everything() == before
    await bob.ReleaseHold(pb.ReleaseHoldRequest(id=bank.hold))
    settled = bank.everything()
    for call in (
        bob.ReleaseHold(pb.ReleaseHoldRequest(id=bank.hold)),
        bob.CaptureHold(pb.CaptureHoldRequest(id=bank.hold, quantity="1")),
    ):
        await refusal(call, StatusCode.FAILED_PRECONDITION, "HOLD_SETTLED", "id")
    assert bank.everything() == settled


async def test_a_batch_of_bad_transfers_is_told_so_within_the_trailers(bank: Bank) -> None:
    alice = await bank.stub(bank.alice)
    batch = pb.TransferBatchRequest(request_id="r")
    for _ in range(10_000):
        batch.transfers.add(recipient="\n" * 80, quantity="1.5" * 30)
    before = bank.everything()
    fields = [f"transfers[{n}].{name}" for n in range(10) for name in ("recipient", "quantity")]
    await refusal(
        alice.TransferBatch(batch),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        *fields,
        "transfers",
    )
    assert bank.everything() == before

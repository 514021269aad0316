"""The token service's requests: their fields' rules, and what makes two of them the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from evalpool.common.v1.service_info_pb2 import Tag as TagMessage
from evalpool.token.v1 import token_pb2
from evalpool.values import (
    Fields,
    InvalidFields,
    InvalidValue,
    Tag,
    parse_address,
    parse_integer,
    parse_positive_quantity,
    parse_request_id,
    parse_tags,
    parse_transfer_id,
)
from evalpool_runtime.errors import PermissionDenied, reasons
from evalpool_runtime.protobuf import from_duration
from evalpool_token.ledger import Payment

MAX_PAGE = 1_000
DEFAULT_PAGE = 100
MAX_SEQUENCE = 2**62

MAX_BATCH_BYTES = 12 * 1024 * 1024
"""Bytes of a TransferBatchRequest at most."""

MAX_BATCH_VIOLATIONS = 20
"""Violations in a batch that are told at once, before the rest is left unlooked at."""


@dataclass(frozen=True, slots=True)
class TransferOrder:
    """One or more payments of one sender."""

    payments: tuple[Payment, ...]
    request_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class SupplyOrder:
    """A mint (with a recipient) or a burn (without)."""

    recipient: str
    quantity: int
    request_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class HoldOrder:
    """Units to set aside."""

    recipient: str
    quantity: int
    time_to_live: timedelta
    request_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class CaptureOrder:
    """Units to take of a hold."""

    hold: str
    quantity: int


def parse_id(text: str) -> str:
    """Read the only field of a request, the id of a transfer or a hold.

    Raises:
        InvalidFields: It is none.
    """
    fields = Fields()
    parsed = fields.parse("id", parse_transfer_id, text)
    fields.check()
    return parsed


def parse_account(request: token_pb2.GetBalanceRequest, caller: str, *, is_operator: bool) -> str:
    """Read a GetBalanceRequest: whose balance is asked for.

    Raises:
        InvalidFields: It names no account.
        PermissionDenied: It names another's, and the caller is not the operator.
    """
    if not request.account:
        return caller
    fields = Fields()
    account = fields.parse("account", parse_address, request.account)
    fields.check()
    if account != caller and not is_operator:
        raise PermissionDenied(
            reasons.ERROR_REASON_NOT_ALLOWED,
            "account: only the operator may see the balance of another; leave it empty",
        )
    return account


def parse_page_size(request: token_pb2.ListTransfersRequest) -> int:
    """Read a ListTransfersRequest, apart from its page token.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    size = fields.attempt(
        "page_size",
        lambda: parse_integer(
            request.page_size, at_least=1, at_most=MAX_PAGE, default=DEFAULT_PAGE
        ),
    )
    fields.check()
    return size


def parse_watch(request: token_pb2.WatchNoticesRequest) -> int:
    """Read a WatchNoticesRequest: the last sequence number seen.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    after = fields.attempt(
        "after_sequence",
        lambda: parse_integer(request.after_sequence, at_least=0, at_most=MAX_SEQUENCE),
    )
    fields.check()
    return after


def parse_transfer(request: token_pb2.TransferRequest, sender: str) -> TransferOrder:
    """Read a TransferRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    payment = _payment(fields, "", request.recipient, request.quantity, request.tags, sender)
    request_id = fields.parse("request_id", parse_request_id, request.request_id)
    fields.check()
    return TransferOrder((payment,), request_id, _fingerprint("transfer", [payment]))


def parse_batch(
    request: token_pb2.TransferBatchRequest, sender: str, max_transfers: int
) -> TransferOrder:
    """Read a TransferBatchRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    count = len(request.transfers)
    if not 1 <= count <= max_transfers:
        fields.refuse("transfers", f"there are {count}; send 1 to {max_transfers}")
        fields.check()
    # The answer repeats the tags and adds ids, and must fit into a message too.
    if request.ByteSize() > MAX_BATCH_BYTES:
        fields.refuse(
            "transfers",
            f"they have {request.ByteSize()} bytes together; send at most {MAX_BATCH_BYTES}, in "
            "several batches",
        )
        fields.check()
    request_id = fields.parse("request_id", parse_request_id, request.request_id)
    payments: list[Payment] = []
    told = 0
    for place, transfer in enumerate(request.transfers):
        item = Fields()
        payments.append(
            _payment(
                item,
                f"transfers[{place}].",
                transfer.recipient,
                transfer.quantity,
                transfer.tags,
                sender,
            )
        )
        try:
            item.check()
        except InvalidFields as error:
            for violation in error.violations:
                fields.refuse(violation.field, violation.description)
            told += len(error.violations)
        # An error travels in trailers, which are short.
        if told >= MAX_BATCH_VIOLATIONS:
            fields.refuse("transfers", f"only transfers up to {place} were looked at; correct them")
            break
    fields.check()
    return TransferOrder(tuple(payments), request_id, _fingerprint("batch", payments))


def parse_mint(request: token_pb2.MintRequest) -> SupplyOrder:
    """Read a MintRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    recipient = fields.parse("recipient", parse_address, request.recipient)
    quantity = fields.parse("quantity", parse_positive_quantity, request.quantity)
    request_id = fields.parse("request_id", parse_request_id, request.request_id)
    fields.check()
    fingerprint = _fingerprint("mint", [Payment(recipient, quantity)])
    return SupplyOrder(recipient, quantity, request_id, fingerprint)


def parse_burn(request: token_pb2.BurnRequest) -> SupplyOrder:
    """Read a BurnRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    quantity = fields.parse("quantity", parse_positive_quantity, request.quantity)
    request_id = fields.parse("request_id", parse_request_id, request.request_id)
    fields.check()
    return SupplyOrder("", quantity, request_id, _fingerprint("burn", [Payment("", quantity)]))


def parse_hold(request: token_pb2.HoldRequest, holder: str, longest: timedelta) -> HoldOrder:
    """Read a HoldRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    payment = _payment(fields, "", request.recipient, request.quantity, (), holder)
    time_to_live = fields.attempt(
        "time_to_live", lambda: _time_to_live(request.time_to_live, longest)
    )
    request_id = fields.parse("request_id", parse_request_id, request.request_id)
    fields.check()
    fingerprint = _fingerprint("hold", [payment], str(time_to_live / timedelta(microseconds=1)))
    return HoldOrder(payment.recipient, payment.quantity, time_to_live, request_id, fingerprint)


def parse_capture(request: token_pb2.CaptureHoldRequest) -> CaptureOrder:
    """Read a CaptureHoldRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    hold = fields.parse("id", parse_transfer_id, request.id)
    quantity = fields.parse("quantity", parse_positive_quantity, request.quantity)
    fields.check()
    return CaptureOrder(hold, quantity)


def _time_to_live(message: Duration, longest: timedelta) -> timedelta:
    # Compared as integers: what a Duration can say is more than a timedelta can.
    nanos = message.seconds * 10**9 + message.nanos
    at_most = longest // timedelta(microseconds=1) * 1000
    if not 0 <= message.nanos < 10**9 or not 10**9 <= nanos <= at_most:
        raise InvalidValue(
            f"it is {message.seconds} s and {message.nanos} ns; give 1 s to "
            f"{longest.total_seconds():.0f} s, with 0 to 999,999,999 ns"
        )
    return from_duration(message)


def _payment(
    fields: Fields,
    prefix: str,
    recipient: str,
    quantity: str,
    tags: Iterable[TagMessage],
    sender: str,
) -> Payment:
    def parse_recipient(text: str) -> str:
        address = parse_address(text)
        if address == sender:
            raise InvalidValue("it is the sender's own address; name another account")
        return address

    parsed_tags: tuple[Tag, ...] = fields.attempt(
        f"{prefix}tags", lambda: parse_tags((tag.name, tag.value) for tag in tags)
    )
    return Payment(
        fields.parse(f"{prefix}recipient", parse_recipient, recipient),
        fields.parse(f"{prefix}quantity", parse_positive_quantity, quantity),
        parsed_tags,
    )


def _fingerprint(kind: str, payments: Iterable[Payment], *more: str) -> str:
    content = [
        kind,
        [
            [p.recipient, str(p.quantity), [[tag.name, tag.value] for tag in p.tags]]
            for p in payments
        ],
        *more,
    ]
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()

"""The token service's requests: their fields' rules, and what makes two of them the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from evalpool.common.v1.service_info_pb2 import Tag as TagMessage
from evalpool.token.v1 import token_pb2
from evalpool.values import (
    Fields,
    InvalidValue,
    Tag,
    parse_address,
    parse_positive_quantity,
    parse_request_id,
    parse_tags,
)
from evalpool_runtime.protobuf import from_duration
from evalpool_token.ledger import Payment


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
    payments = tuple(
        _payment(fields, f"transfers[{place}].", t.recipient, t.quantity, t.tags, sender)
        for place, t in enumerate(request.transfers)
    )
    request_id = fields.parse("request_id", parse_request_id, request.request_id)
    fields.check()
    return TransferOrder(payments, request_id, _fingerprint("batch", payments))


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
    time_to_live = from_duration(request.time_to_live)
    if not timedelta(seconds=1) <= time_to_live <= longest:
        fields.refuse(
            "time_to_live",
            f"it is {time_to_live.total_seconds():g} s; give 1 s to {longest.total_seconds():g} s",
        )
    request_id = fields.parse("request_id", parse_request_id, request.request_id)
    fields.check()
    fingerprint = _fingerprint("hold", [payment], str(time_to_live / timedelta(microseconds=1)))
    return HoldOrder(payment.recipient, payment.quantity, time_to_live, request_id, fingerprint)


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

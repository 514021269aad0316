"""The ledger's values as the contract's messages."""

from __future__ import annotations

from collections.abc import Iterable

from evalpool.common.v1.service_info_pb2 import Tag
from evalpool.token.v1 import token_pb2
from evalpool_runtime.protobuf import timestamp
from evalpool_token.entries import Entry, Hold, HoldState
from evalpool_token.store.log import AccountEntry

PAGE_BYTES = 4 * 1024 * 1024
"""A page ends here even where more transfers were asked for: it must fit into a message."""

_HOLD_STATES = {
    HoldState.OPEN: token_pb2.HOLD_STATE_OPEN,
    HoldState.CAPTURED: token_pb2.HOLD_STATE_CAPTURED,
    HoldState.RELEASED: token_pb2.HOLD_STATE_RELEASED,
    HoldState.EXPIRED: token_pb2.HOLD_STATE_EXPIRED,
}


def transfer_message(entry: Entry, reader: str) -> token_pb2.Transfer:
    """An entry as a transfer; the request id only for its author."""
    return token_pb2.Transfer(
        id=entry.id,
        sender=entry.sender,
        recipient=entry.recipient,
        quantity=str(entry.quantity),
        tags=[Tag(name=tag.name, value=tag.value) for tag in entry.tags],
        sequence=entry.sequence,
        commit_time=timestamp(entry.commit_time),
        request_id=entry.request_id if reader == entry.author else "",
    )


def transfers_that_fit(movements: Iterable[AccountEntry], reader: str) -> list[token_pb2.Transfer]:
    """The first movements as transfers, as many as a page has room for, at least one."""
    fitting: list[token_pb2.Transfer] = []
    size = 0
    for seen in movements:
        message = transfer_message(seen.entry, reader)
        size += message.ByteSize()
        if fitting and size > PAGE_BYTES:
            break
        fitting.append(message)
    return fitting


def notice_message(seen: AccountEntry) -> token_pb2.Notice:
    """A movement as a notice to one of its accounts."""
    account = seen.posting.account
    credit = account == seen.entry.recipient
    return token_pb2.Notice(
        sequence=seen.entry.sequence,
        kind=token_pb2.NOTICE_KIND_CREDIT if credit else token_pb2.NOTICE_KIND_DEBIT,
        transfer=transfer_message(seen.entry, account),
        balance=str(seen.posting.balance),
    )


def hold_message(hold: Hold) -> token_pb2.HeldUnits:
    """A hold."""
    return token_pb2.HeldUnits(
        id=hold.id,
        holder=hold.holder,
        recipient=hold.recipient,
        quantity=str(hold.quantity),
        captured=str(hold.captured),
        state=_HOLD_STATES[hold.state],
        expire_time=timestamp(hold.expire_time),
        create_time=timestamp(hold.create_time),
    )

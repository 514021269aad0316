"""The log of entries, append-only, and how each account sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from evalpool.values import Tag
from evalpool_runtime.errors import NotFound, reasons
from evalpool_token import schema
from evalpool_token.entries import TRANSFER_KINDS, Entry, EntryKind, Posting
from evalpool_token.store import head

_ENTRIES_A_QUERY = 1000


@dataclass(frozen=True, slots=True)
class AccountEntry:
    """An entry, as one account sees it.

    Attributes:
        entry: The entry, without postings.
        posting: What it does to the account.
    """

    entry: Entry
    posting: Posting


def append(connection: Connection, entries: Sequence[Entry]) -> None:
    """Write entries and their postings."""
    connection.execute(insert(schema.entries), [_entry_values(entry) for entry in entries])
    connection.execute(
        insert(schema.postings),
        [
            {
                "account": posting.account,
                "sequence": entry.sequence,
                "amount": posting.amount,
                "held_amount": posting.held_amount,
                "balance": posting.balance,
                "held": posting.held,
            }
            for entry in entries
            for posting in entry.postings
        ],
    )


def between(connection: Connection, first: int, last: int) -> list[Entry]:
    """Entries by their sequence numbers, both ends included, with their postings."""
    postings: dict[int, list[Posting]] = {}
    for row in connection.execute(
        select(schema.postings).where(schema.postings.c.sequence.between(first, last))
    ):
        postings.setdefault(row.sequence, []).append(_posting(row))
    rows = connection.execute(
        select(schema.entries)
        .where(schema.entries.c.sequence.between(first, last))
        .order_by(schema.entries.c.sequence)
    )
    return [_entry(row, tuple(postings.get(row.sequence, ()))) for row in rows]


def everything(connection: Connection) -> Iterator[Entry]:
    """Every entry with its postings, in order, read in parts; for the audit."""
    newest = head.read(connection).sequence
    for first in range(1, newest + 1, _ENTRIES_A_QUERY):
        last = min(first + _ENTRIES_A_QUERY - 1, newest)
        yield from between(connection, first, last)


def require_transfer(connection: Connection, transfer: str, party: str) -> Entry:
    """The transfer with an id, for a party to it; of a hold, its capture.

    Raises:
        NotFound: There is none, or the caller is not a party to it.
    """
    row = connection.execute(
        select(schema.entries).where(
            schema.entries.c.id == transfer, schema.entries.c.kind.in_(TRANSFER_KINDS)
        )
    ).first()
    if row is None or party not in (row.sender, row.recipient, row.author):
        raise NotFound(
            reasons.ERROR_REASON_TRANSFER_NOT_FOUND,
            "id: you are party to no transfer with this id; ListTransfers lists yours",
        )
    return _entry(row)


def movements_after(
    connection: Connection, account: str, after: int, up_to: int, limit: int
) -> list[AccountEntry]:
    """An account's movements after a sequence number and up to another, oldest first."""
    condition = schema.postings.c.sequence.between(after + 1, up_to)
    return _account_entries(connection, account, condition, limit, descending=False)


def movements_before(
    connection: Connection, account: str, before: int | None, limit: int
) -> list[AccountEntry]:
    """An account's movements before a sequence number, newest first; None begins at the newest."""
    condition = True if before is None else schema.postings.c.sequence < before
    return _account_entries(connection, account, condition, limit, descending=True)


def _account_entries(
    connection: Connection, account: str, condition: Any, limit: int, *, descending: bool
) -> list[AccountEntry]:
    order = schema.postings.c.sequence.desc() if descending else schema.postings.c.sequence
    rows = connection.execute(
        select(
            schema.entries,
            schema.postings.c.account,
            schema.postings.c.amount,
            schema.postings.c.held_amount,
            schema.postings.c.balance,
            schema.postings.c.held,
        )
        .join(schema.entries, schema.entries.c.sequence == schema.postings.c.sequence)
        .where(
            schema.postings.c.account == account,
            condition,
            schema.entries.c.kind.in_(TRANSFER_KINDS),
        )
        .order_by(order)
        .limit(limit)
    )
    return [AccountEntry(_entry(row), _posting(row)) for row in rows]


def _entry_values(entry: Entry) -> dict[str, Any]:
    return {
        "sequence": entry.sequence,
        "kind": entry.kind.value,
        "id": entry.id,
        "sender": entry.sender,
        "recipient": entry.recipient,
        "quantity": entry.quantity,
        "tags": [[tag.name, tag.value] for tag in entry.tags],
        "commit_time": entry.commit_time,
        "author": entry.author,
        "request_id": entry.request_id,
        "expire_time": entry.expire_time,
        "previous_hash": entry.previous_hash,
        "hash": entry.hash,
    }


def _entry(row: Row[Any], postings: tuple[Posting, ...] = ()) -> Entry:
    return Entry(
        sequence=row.sequence,
        kind=EntryKind(row.kind),
        id=row.id,
        sender=row.sender,
        recipient=row.recipient,
        quantity=row.quantity,
        tags=tuple(Tag(name, value) for name, value in row.tags),
        commit_time=row.commit_time,
        author=row.author,
        request_id=row.request_id,
        expire_time=row.expire_time,
        previous_hash=row.previous_hash,
        hash=row.hash,
        postings=postings,
    )


def _posting(row: Row[Any]) -> Posting:
    return Posting(row.account, row.amount, row.held_amount, row.balance, row.held)

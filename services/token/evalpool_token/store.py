"""The ledger in its database. All functions run within the caller's transaction.

Sums and comparisons happen in Python, under the lock on the head: SQLite would take quantities for
floats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from evalpool.values import Tag
from evalpool_runtime.errors import AlreadyExists, NotFound, reasons
from evalpool_token import schema
from evalpool_token.entries import Account, Entry, EntryKind, Head, Hold, HoldState, Posting
from evalpool_token.ledger import Draft

# SQLite takes at most 32,766 parameters in a statement.
_KEYS_A_QUERY = 1000
_ENTRIES_A_QUERY = 1000

TRANSFER_KINDS = (EntryKind.TRANSFER, EntryKind.MINT, EntryKind.BURN, EntryKind.CAPTURE)
"""The kinds of entries that move units between owners, and so make notices."""


@dataclass(frozen=True, slots=True)
class AccountEntry:
    """An entry, as one account sees it.

    Attributes:
        entry: The entry, without postings.
        posting: What it does to the account.
    """

    entry: Entry
    posting: Posting


class AnotherLedger(RuntimeError):
    """The database holds the ledger of another key."""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """What a request made.

    Attributes:
        entries: Its entries, with their postings.
        supply: Units in existence right after it.
    """

    entries: tuple[Entry, ...]
    supply: int


def claim(connection: Connection, ledger: str) -> None:
    """Say whose ledger this is at the first start, and check it at every other.

    Ids of transfers depend on the ledger's address, so a database must keep its key.

    Raises:
        AnotherLedger: The database is the ledger of another key.
    """
    present = connection.execute(select(schema.head.c.ledger).with_for_update()).scalar_one()
    if not present:
        connection.execute(update(schema.head).values(ledger=ledger))
    elif present != ledger:
        raise AnotherLedger(
            f"the database is the ledger of {present}, and the service's key is {ledger}; give it "
            "the key file that it was begun with, or another database"
        )


def lock_head(connection: Connection) -> Head:
    """The newest point of the ledger, locked until the transaction ends."""
    return _head(connection.execute(select(schema.head).with_for_update()).one())


def read_head(connection: Connection) -> Head:
    """The newest point of the ledger."""
    return _head(connection.execute(select(schema.head)).one())


def commit(connection: Connection, made: Draft) -> None:
    """Write a draft's entries, postings, accounts, holds and head."""
    if not made.entries:
        return
    touched = {posting.account for entry in made.entries for posting in entry.postings}
    _write_accounts(connection, [made.accounts[address] for address in sorted(touched)])
    connection.execute(insert(schema.entries), [_entry_values(entry) for entry in made.entries])
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
            for entry in made.entries
            for posting in entry.postings
        ],
    )
    for hold in made.holds:
        _write_hold(connection, hold)
    connection.execute(
        update(schema.head).values(
            sequence=made.head.sequence,
            hash=made.head.hash,
            supply=made.head.supply,
            commit_time=made.head.time,
        )
    )


def find_request(
    connection: Connection, sender: str, request_id: str, fingerprint: str
) -> RecordedRequest | None:
    """What a request made before; None for a new request. Call it under the lock.

    Raises:
        AlreadyExists: The request had other content.
    """
    row = connection.execute(
        select(schema.requests).where(
            schema.requests.c.sender == sender, schema.requests.c.request_id == request_id
        )
    ).first()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise AlreadyExists(
            reasons.ERROR_REASON_REQUEST_ID_REUSED,
            f'request_id: "{request_id}" was used before with other content; choose a new one',
            request_id=request_id,
        )
    entries = entries_between(connection, row.first_sequence, row.last_sequence)
    return RecordedRequest(tuple(entries), row.supply)


def record_request(
    connection: Connection, sender: str, request_id: str, fingerprint: str, made: RecordedRequest
) -> None:
    """Remember what a request made, for ever."""
    connection.execute(
        insert(schema.requests).values(
            sender=sender,
            request_id=request_id,
            fingerprint=fingerprint,
            first_sequence=made.entries[0].sequence,
            last_sequence=made.entries[-1].sequence,
            supply=made.supply,
        )
    )


def read_account(connection: Connection, address: str) -> tuple[Account, int]:
    """One account, an unknown one being empty, and the sequence number at which it was so."""
    # One statement, so that both are of one moment on PostgreSQL too.
    row = connection.execute(
        select(schema.head.c.sequence, schema.accounts.c.balance, schema.accounts.c.held)
        .select_from(schema.head)
        .outerjoin(schema.accounts, schema.accounts.c.address == address)
    ).one()
    return Account(address, row.balance or 0, row.held or 0), row.sequence


def read_accounts(connection: Connection, addresses: Sequence[str]) -> list[Account]:
    """The accounts that exist among some addresses."""
    found = []
    for begin in range(0, len(addresses), _KEYS_A_QUERY):
        keys = addresses[begin : begin + _KEYS_A_QUERY]
        rows = connection.execute(
            select(schema.accounts).where(schema.accounts.c.address.in_(keys))
        )
        found += [Account(row.address, row.balance, row.held) for row in rows]
    return found


def all_accounts(connection: Connection) -> list[Account]:
    """Every account, for the audit."""
    rows = connection.execute(select(schema.accounts).order_by(schema.accounts.c.address))
    return [Account(row.address, row.balance, row.held) for row in rows]


def entries_between(connection: Connection, first: int, last: int) -> list[Entry]:
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


def all_entries(connection: Connection) -> Iterator[Entry]:
    """Every entry with its postings, in order, read in parts; for the audit."""
    newest = read_head(connection).sequence
    for first in range(1, newest + 1, _ENTRIES_A_QUERY):
        last = min(first + _ENTRIES_A_QUERY - 1, newest)
        yield from entries_between(connection, first, last)


def all_holds(connection: Connection) -> list[Hold]:
    """Every hold, for the audit."""
    return [_hold(row) for row in connection.execute(select(schema.holds))]


def find_transfer(connection: Connection, transfer: str) -> Entry | None:
    """The transfer with an id; of a hold, its capture."""
    row = connection.execute(
        select(schema.entries).where(
            schema.entries.c.id == transfer, schema.entries.c.kind.in_(TRANSFER_KINDS)
        )
    ).first()
    return _entry(row) if row is not None else None


def account_entries_after(
    connection: Connection, account: str, after: int, up_to: int, limit: int
) -> list[AccountEntry]:
    """An account's movements after a sequence number and up to another, oldest first."""
    condition = schema.postings.c.sequence.between(after + 1, up_to)
    return _account_entries(connection, account, condition, limit, descending=False)


def account_entries_before(
    connection: Connection, account: str, before: int | None, limit: int
) -> list[AccountEntry]:
    """An account's movements before a sequence number, newest first; None begins at the newest."""
    condition = True if before is None else schema.postings.c.sequence < before
    return _account_entries(connection, account, condition, limit, descending=True)


def find_hold(connection: Connection, hold: str) -> Hold | None:
    """The hold with an id."""
    row = connection.execute(select(schema.holds).where(schema.holds.c.id == hold)).first()
    return _hold(row) if row is not None else None


def due_holds(
    connection: Connection, now: datetime, limit: int, holder: str | None = None
) -> list[Hold]:
    """Open holds whose time has passed, oldest first: all, or one holder's."""
    conditions = [schema.holds.c.state == HoldState.OPEN, schema.holds.c.expire_time <= now]
    if holder is not None:
        conditions.append(schema.holds.c.holder == holder)
    rows = connection.execute(
        select(schema.holds)
        .where(*conditions)
        .order_by(schema.holds.c.expire_time, schema.holds.c.id)
        .limit(limit)
    )
    return [_hold(row) for row in rows]


def require_hold(connection: Connection, hold: str, party: str) -> Hold:
    """The hold with an id, for its holder or its recipient.

    Raises:
        NotFound: There is none, or the caller is not a party to it.
    """
    found = find_hold(connection, hold)
    if found is None or party not in (found.holder, found.recipient):
        raise NotFound(
            reasons.ERROR_REASON_HOLD_NOT_FOUND,
            "id: you are party to no hold with this id; check it",
        )
    return found


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


def _head(row: Row[Any]) -> Head:
    return Head(row.sequence, row.hash, row.supply, row.commit_time)


def _write_accounts(connection: Connection, accounts: list[Account]) -> None:
    dialect: Any = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(schema.accounts)
    statement = statement.on_conflict_do_update(
        index_elements=["address"],
        set_={"balance": statement.excluded.balance, "held": statement.excluded.held},
    )
    connection.execute(
        statement,
        [{"address": a.address, "balance": a.balance, "held": a.held} for a in accounts],
    )


def _write_hold(connection: Connection, hold: Hold) -> None:
    values = {
        "holder": hold.holder,
        "recipient": hold.recipient,
        "quantity": hold.quantity,
        "captured": hold.captured,
        "state": hold.state.value,
        "create_time": hold.create_time,
        "expire_time": hold.expire_time,
    }
    if hold.state is HoldState.OPEN:
        connection.execute(insert(schema.holds).values(id=hold.id, **values))
    else:
        connection.execute(
            update(schema.holds).where(schema.holds.c.id == hold.id).values(**values)
        )


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


def _hold(row: Row[Any]) -> Hold:
    return Hold(
        id=row.id,
        holder=row.holder,
        recipient=row.recipient,
        quantity=row.quantity,
        captured=row.captured,
        state=HoldState(row.state),
        create_time=row.create_time,
        expire_time=row.expire_time,
    )

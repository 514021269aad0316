"""Entries, what counts against a participant's entries a day, and the requests that joined."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from evalpool_benchmark.entry import IN_FLIGHT, Entry, EntryState
from evalpool_benchmark.schema import attempts, entries, join_requests
from evalpool_runtime.errors import NotFound, reasons


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A join that a participant asked for under an id of their own."""

    pool: str
    subject: str
    entry: str


def require(connection: Connection, entry_id: str, *, lock: bool = False) -> Entry:
    """An entry that a call names by its field `id`.

    Args:
        connection: The transaction.
        entry_id: The entry's id.
        lock: Nobody else changes it until the transaction ends.

    Raises:
        NotFound: There is none.
    """
    query = select(entries).where(entries.c.id == entry_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise NotFound(
            reasons.ERROR_REASON_ENTRY_NOT_FOUND,
            f'id: there is no entry with the id "{entry_id}"; JoinPool answers with the id',
            entry=entry_id,
        )
    return _entry(row)


def lock(connection: Connection, entry_id: str) -> Entry | None:
    """An entry, or None; nobody else changes it until the transaction ends."""
    query = select(entries).where(entries.c.id == entry_id).with_for_update()
    row = connection.execute(query).first()
    return None if row is None else _entry(row)


def of_pool(connection: Connection, pool: str) -> list[Entry]:
    """A pool's entries in the order of joining."""
    query = select(entries).where(entries.c.pool == pool).order_by(entries.c.join_order)
    return [_entry(row) for row in connection.execute(query)]


def lock_of_pool(connection: Connection, pool: str) -> list[Entry]:
    """A pool's entries in the order of joining; nobody else changes them until the end."""
    query = select(entries).where(entries.c.pool == pool).order_by(entries.c.id).with_for_update()
    locked = [_entry(row) for row in connection.execute(query)]
    return sorted(locked, key=lambda entry: entry.join_order)


def lock_of_runs(connection: Connection, runs: Collection[str]) -> list[Entry]:
    """The entries that follow some runs; nobody else changes them until the end."""
    query = select(entries).where(entries.c.run.in_(runs)).order_by(entries.c.id).with_for_update()
    return [_entry(row) for row in connection.execute(query)]


def due(connection: Connection, now: datetime, pool: str | None = None) -> list[Entry]:
    """Entries that the dataset service is to be told of, by their joins; new ones first."""
    query = (
        select(entries)
        .where(or_(entries.c.state == EntryState.SUBMITTED.value, entries.c.retry_time <= now))
        .order_by(entries.c.retry_time.is_not(None), entries.c.join_time, entries.c.id)
    )
    if pool is not None:
        query = query.where(entries.c.pool == pool)
    return [_entry(row) for row in connection.execute(query)]


def open_runs(connection: Connection, pool: str | None = None) -> list[str]:
    """Runs whose entries are not final; of one pool or of all."""
    query = (
        select(entries.c.run)
        .where(
            entries.c.run != "",
            or_(
                entries.c.state.in_([state.value for state in IN_FLIGHT]),
                entries.c.retry_time.is_not(None),
            ),
        )
        .distinct()
    )
    if pool is not None:
        query = query.where(entries.c.pool == pool)
    return list(connection.scalars(query))


def submit_all_again(connection: Connection, now: datetime) -> None:
    """Have every entry that is not final submitted again, and take any score for news then."""
    connection.execute(
        update(entries)
        .where(
            entries.c.run != "",
            or_(
                entries.c.state.in_([state.value for state in IN_FLIGHT]),
                entries.c.retry_time.is_not(None),
            ),
        )
        .values(score_cursor=0, retry_time=now)
    )


def changes_of(connection: Connection, pool: str) -> int:
    """Counts the changes of a pool's entries, joins among them."""
    query = select(func.sum(entries.c.revision)).where(entries.c.pool == pool)
    return int(connection.scalar(query) or 0)


def next_join_order(connection: Connection, pool: str) -> int:
    """The place of the next join of a locked pool."""
    query = select(func.max(entries.c.join_order)).where(entries.c.pool == pool)
    return (connection.scalar(query) or 0) + 1


def enter(connection: Connection, entry: Entry) -> None:
    """Keep a new entry, or the new attempt of one that is entered again."""
    if entry.attempt == 1:
        connection.execute(insert(entries).values(**_columns(entry)))
    else:
        save(connection, entry)
    connection.execute(
        insert(attempts).values(
            entry=entry.id,
            attempt=entry.attempt,
            pool=entry.pool,
            participant=entry.participant,
            join_time=entry.join_time,
            returned=False,
        )
    )


def save(connection: Connection, entry: Entry) -> None:
    """Keep what has changed of a locked entry; an attempt counts unless it has failed."""
    connection.execute(update(entries).where(entries.c.id == entry.id).values(**_columns(entry)))
    connection.execute(
        update(attempts)
        .where(attempts.c.entry == entry.id, attempts.c.attempt == entry.attempt)
        .values(returned=entry.state is EntryState.FAILED)
    )


def attempts_since(
    connection: Connection, pool: str, participant: str, since: datetime
) -> list[datetime]:
    """When a participant's attempts after a moment were made, failed ones left out."""
    query = (
        select(attempts.c.join_time)
        .where(
            attempts.c.pool == pool,
            attempts.c.participant == participant,
            attempts.c.join_time > since,
            attempts.c.returned.is_(False),
        )
        .order_by(attempts.c.join_time)
    )
    return list(connection.scalars(query))


def join_request(connection: Connection, participant: str, request_id: str) -> JoinRequest | None:
    """What a participant asked for under a request id, or None."""
    row = connection.execute(
        select(join_requests).where(
            join_requests.c.participant == participant, join_requests.c.request_id == request_id
        )
    ).first()
    return None if row is None else JoinRequest(row.pool, row.subject, row.entry)


def remember_join(
    connection: Connection, participant: str, request_id: str, request: JoinRequest
) -> bool:
    """Keep what a participant asked for under a request id.

    Returns:
        Whether the id was free.
    """
    upsert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    statement = upsert(join_requests).values(
        participant=participant,
        request_id=request_id,
        pool=request.pool,
        subject=request.subject,
        entry=request.entry,
    )
    returning = statement.on_conflict_do_nothing().returning(join_requests.c.entry)
    return connection.execute(returning).first() is not None


def _columns(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "state": entry.state.value}


def _entry(row: Row[Any]) -> Entry:
    return Entry(**{**row._mapping, "state": EntryState(row.state)})

"""Leases: which replica does which work.

They only keep replicas from doing the same work twice over; that nothing happens twice is the
promise of row locks, unique keys and request ids, with or without a lease.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, or_
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from evalpool_benchmark.schema import leases


def acquire(
    connection: Connection, name: str, holder: str, now: datetime, length: timedelta
) -> bool:
    """Take a lease that is free or lapsed, or prolong one's own.

    Returns:
        Whether the holder has it until `now` + `length`.
    """
    upsert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    statement = upsert(leases).values(name=name, holder=holder, expires=now + length)
    statement = statement.on_conflict_do_update(
        index_elements=[leases.c.name],
        set_={"holder": holder, "expires": now + length},
        where=or_(leases.c.holder == holder, leases.c.expires <= now),
    )
    return connection.execute(statement.returning(leases.c.name)).first() is not None


def release(connection: Connection, name: str, holder: str) -> None:
    """Give a lease back, if it is the holder's."""
    connection.execute(delete(leases).where(leases.c.name == name, leases.c.holder == holder))


def release_all(connection: Connection) -> None:
    """Free every lease, for a process that knows that it is the only one."""
    connection.execute(delete(leases))

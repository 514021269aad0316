"""When each sweep was last done."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from evalpool_benchmark.schema import sweeps


def last_time(connection: Connection, name: str) -> datetime | None:
    """When a sweep was last done; None where it never was."""
    return connection.scalar(select(sweeps.c.time).where(sweeps.c.name == name))


def done(connection: Connection, name: str, time: datetime) -> None:
    """Keep when a sweep was done; the newest time stays."""
    upsert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    statement = upsert(sweeps).values(name=name, time=time)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[sweeps.c.name], set_={"time": time}, where=sweeps.c.time < time
        )
    )

"""Transactions on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, insert, select, update
from sqlalchemy.exc import DBAPIError

from evalpool_runtime.columns import Json, Quantity, UtcDateTime
from evalpool_runtime.database import Database

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("quantity", Quantity, nullable=False),
    Column("moment", UtcDateTime),
    Column("value", Json),
)


@pytest.fixture
async def opened(database_url: str) -> AsyncIterator[Database]:
    database = Database.open(database_url)
    await database.write(metadata.create_all)
    yield database
    await database.close()


async def quantity_of_first(database: Database) -> int:
    value = await database.read(lambda c: c.scalar(select(things.c.quantity)))
    assert isinstance(value, int)
    return value


async def test_what_a_write_returns_from_is_committed(opened: Database) -> None:
    await opened.write(lambda c: c.execute(insert(things).values(id=1, quantity=10**39 - 1)))

    assert await quantity_of_first(opened) == 10**39 - 1


async def test_a_write_that_raises_leaves_no_trace(opened: Database) -> None:
    def fail(connection: Connection) -> None:
        connection.execute(insert(things).values(id=1, quantity=1))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await opened.write(fail)

    assert await opened.read(lambda c: c.execute(select(things)).all()) == []


async def test_concurrent_increments_are_all_counted(opened: Database) -> None:
    await opened.write(lambda c: c.execute(insert(things).values(id=1, quantity=0)))

    def increment(connection: Connection) -> None:
        present = connection.scalar(select(things.c.quantity).with_for_update())
        assert present is not None
        connection.execute(update(things).values(quantity=present + 1))

    await asyncio.gather(*(opened.write(increment) for _ in range(50)))

    assert await quantity_of_first(opened) == 50


async def test_readers_on_sqlite_cannot_write(opened: Database) -> None:
    if opened.dialect != "sqlite":
        return
    with pytest.raises(DBAPIError, match="readonly"):
        await opened.read(lambda c: c.execute(insert(things).values(id=1, quantity=1)))


async def test_moments_come_back_in_utc_to_the_microsecond(opened: Database) -> None:
    moment = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    await opened.write(
        lambda c: c.execute(insert(things).values(id=1, quantity=0, moment=moment, value={"b": 1}))
    )

    row = await opened.read(lambda c: c.execute(select(things)).one())

    assert row.moment == moment
    assert row.moment.tzinfo == UTC
    assert row.value == {"b": 1}


async def test_a_moment_without_a_zone_is_refused(opened: Database) -> None:
    naive = datetime(2026, 3, 1)
    with pytest.raises(Exception, match="without a time zone"):
        await opened.write(
            lambda c: c.execute(insert(things).values(id=1, quantity=0, moment=naive))
        )

"""Transactions on both databases."""

from __future__ import annotations

import asyncio
import socket
import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from evalpool_runtime import database as database_module
from evalpool_runtime.columns import Json, Quantity, UtcDateTime
from evalpool_runtime.database import Database
from evalpool_runtime.errors import Unavailable

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("quantity", Quantity, nullable=False),
    Column("moment", UtcDateTime),
    Column("value", Json),
)
prompts = Table(
    "prompts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("prompt", Text, CheckConstraint("length(prompt) < 20"), nullable=False),
)
SECRET = "who hid the money under the bridge"


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


async def test_a_thread_reads_by_itself_what_is_committed(opened: Database) -> None:
    await opened.write(lambda c: c.execute(insert(things).values(quantity=7)))

    read = await asyncio.to_thread(opened.read_here, lambda c: c.scalar(select(things.c.quantity)))

    assert read == 7


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


async def test_no_value_of_a_row_is_in_an_errors_text(opened: Database) -> None:
    """It goes to the log, where no prompt and no answer may be read."""
    with pytest.raises(IntegrityError) as caught:
        await opened.write(lambda c: c.execute(insert(prompts).values(id=1, prompt=SECRET)))

    written = "".join(traceback.format_exception(caught.value))
    assert "INSERT INTO prompts" in written
    assert "CHECK" in written.upper()
    assert SECRET not in written


async def test_postgresqls_words_about_a_value_are_not_in_an_errors_text(opened: Database) -> None:
    if opened.dialect != "postgresql":
        return
    with pytest.raises(DBAPIError) as caught:
        await opened.read(lambda c: c.scalar(select(literal(SECRET).cast(Integer))))

    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_a_connection_that_is_lost_makes_the_call_unavailable_and_the_next_goes_well(
    opened: Database,
) -> None:
    if opened.dialect != "postgresql":
        return

    def lose(connection: Connection) -> None:
        process = connection.scalar(text("SELECT pg_backend_pid()"))
        with opened.engine.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:process)"), {"process": process})
        connection.execute(insert(things).values(id=1, quantity=1))

    with pytest.raises(Unavailable, match="try again") as caught:
        await opened.write(lose)

    assert caught.value.retry_after == 1.0
    assert await opened.read(lambda c: c.execute(select(things)).all()) == []


@pytest.mark.parametrize("where", ["127.0.0.1:1/db", "/db?host=127.0.0.1:1&host=127.0.0.2:1"])
async def test_a_database_that_cannot_be_reached_is_unavailable(where: str) -> None:
    nowhere = Database.open(f"postgresql+psycopg://me@{where}")
    try:
        with pytest.raises(Unavailable) as caught:
            await nowhere.read(lambda c: c.scalar(select(things.c.id)))
    finally:
        await nowhere.close()
    assert "refused" in str(caught.value.__cause__)


async def test_a_server_that_never_answers_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(database_module._POSTGRES_WAITS, "connect_timeout", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        database = Database.open(f"postgresql+psycopg://me@127.0.0.1:{port}/evalpool")
        try:
            with pytest.raises(Unavailable):
                await database.read(lambda c: c.scalar(select(things.c.id)))
        finally:
            await database.close()


async def test_a_full_disk_makes_the_call_unavailable_and_keeps_what_is_there(
    opened: Database,
) -> None:
    if opened.dialect != "sqlite":
        return
    await opened.write(lambda c: c.execute(insert(things).values(id=1, quantity=7)))

    def fill(connection: Connection) -> None:
        # SQLite's own bound stands for the disk's.
        pages = connection.scalar(text("PRAGMA page_count"))
        connection.execute(text(f"PRAGMA max_page_count = {pages}"))
        connection.execute(insert(things), [{"id": n, "quantity": 10**38} for n in range(2, 5000)])

    with pytest.raises(Unavailable, match="disk"):
        await opened.write(fill)

    await opened.write(lambda c: c.execute(text("PRAGMA max_page_count = 1000000")))
    await opened.write(lambda c: c.execute(insert(things).values(id=2, quantity=8)))
    assert len(await opened.read(lambda c: c.execute(select(things)).all())) == 2

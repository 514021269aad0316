"""Column types, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, text

from evalpool.values import MAX_QUANTITY
from evalpool_runtime.columns import Json, Quantity, UtcDateTime
from evalpool_runtime.database import Database

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("quantity", Quantity),
    Column("moment", UtcDateTime),
    Column("value", Json),
)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database.open(database_url)
    await opened.write(metadata.create_all)
    yield opened
    await opened.close()


async def kept(database: Database, column: str, values: list[Any]) -> list[Any]:
    """What comes back of values that were stored, in their order."""
    rows = [{"id": number, column: value} for number, value in enumerate(values)]
    await database.write(lambda c: c.execute(insert(things), rows))
    return list(
        await database.read(lambda c: c.scalars(select(things.c[column]).order_by("id")).all())
    )


async def test_quantities_are_exact_to_39_digits(database: Database) -> None:
    values = [0, 1, 2**53 + 1, 2**63, 2**64 + 1, 10**38, MAX_QUANTITY - 1, MAX_QUANTITY, None]
    back = await kept(database, "quantity", values)
    assert back == values
    assert all(type(value) is int for value in back[:-1])


async def test_quantities_are_found_by_their_value(database: Database) -> None:
    await kept(database, "quantity", [MAX_QUANTITY, MAX_QUANTITY - 1])
    found = await database.read(
        lambda c: c.scalars(select(things.c.id).where(things.c.quantity == MAX_QUANTITY)).all()
    )
    assert found == [0]


async def test_moments_of_all_zones_come_back_in_utc(database: Database) -> None:
    zone = timezone(timedelta(hours=-9, minutes=-30))
    values = [
        datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=zone),
        datetime(1970, 1, 1, tzinfo=UTC),
        None,
    ]
    back = await kept(database, "moment", values)
    assert back == values
    assert all(value.tzinfo == UTC for value in back[:-1])


async def test_moments_are_in_order_in_sql(database: Database) -> None:
    base = datetime(2026, 1, 1, tzinfo=UTC)
    zone = timezone(timedelta(hours=5))
    spans = [timedelta(microseconds=1), timedelta(), timedelta(hours=-1), timedelta(days=9)]
    await kept(database, "moment", [(base + span).astimezone(zone) for span in spans])
    ids = await database.read(
        lambda c: c.scalars(select(things.c.id).order_by(things.c.moment)).all()
    )
    assert ids == [2, 1, 0, 3]


async def test_json_comes_back_as_it_was(database: Database) -> None:
    values = [{"b": [1, 2.5, None], "a": "ü\0\n"}, [], "", 0, False, {}]
    assert await kept(database, "value", values) == values


async def test_equal_json_has_equal_text(database: Database) -> None:
    await kept(database, "value", [{"a": 1, "b": "ü"}, {"b": "ü", "a": 1}])
    texts = await database.read(lambda c: c.scalars(text("SELECT value FROM things")).all())
    assert list(texts) == ['{"a":1,"b":"ü"}'] * 2

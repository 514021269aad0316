"""What the benchmark service's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from evalpool_runtime.database import Database
from tests.benchmark.world import World, running_world
from tests.conftest import OpenDatabase


@pytest.fixture
async def store(database: OpenDatabase) -> Database:
    """The benchmark service's migrated database, once on SQLite and once on PostgreSQL."""
    return await database("evalpool_benchmark.migrations")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A benchmark service among its peers."""
    async with running_world(tmp_path) as made:
        yield made


@pytest.fixture
def postgresql_url(postgresql: str) -> str:
    """The URL of an empty database on PostgreSQL."""
    url = make_url(postgresql).set(drivername="postgresql+psycopg")
    name = f"test_{uuid4().hex}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url.set(database=name).render_as_string(hide_password=False)

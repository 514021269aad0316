"""The service's database, once on SQLite and once on PostgreSQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from evalpool_runtime.database import Database

OpenDatabase = Callable[[str], Awaitable[Database]]


@pytest.fixture
async def opened(database: OpenDatabase) -> Database:
    return await database("evalpool_embedding.migrations")

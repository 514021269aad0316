"""What the benchmark service's tests share."""

from __future__ import annotations

import pytest

from evalpool_runtime.database import Database
from tests.conftest import OpenDatabase


@pytest.fixture
async def store(database: OpenDatabase) -> Database:
    """The benchmark service's migrated database, once on SQLite and once on PostgreSQL."""
    return await database("evalpool_benchmark.migrations")

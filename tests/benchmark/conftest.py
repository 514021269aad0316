"""What the benchmark service's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

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

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.conftest import OpenDatabase
from tests.router.market import Market
from tests.router.router_harness import RouterHarness, running_router
from tests.router.shelf import Shelf


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[RouterHarness]:
    async with running_router(tmp_path) as harness:
        yield harness


@pytest.fixture
async def shelf(database: OpenDatabase, tmp_path: Path) -> Shelf:
    return Shelf(await database("evalpool_router.migrations"), tmp_path / "files")


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Market]:
    async with AsyncExitStack() as stack:
        made = Market(tmp_path, stack)
        await made.start()
        yield made

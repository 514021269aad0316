"""Questions that are published with their scores; runners on databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.conftest import OpenDatabase
from tests.dataset.runner_harness import Running
from tests.dataset.stored_run import add_run
from tests.published import PUBLISHED, Published


@pytest.fixture(params=PUBLISHED)
def published(request: pytest.FixtureRequest) -> Published:
    """The samples, and Social IQa where it is."""
    found: Published = request.param
    return found


@pytest.fixture
async def running(database: OpenDatabase) -> AsyncIterator[Running]:
    """A run of twenty questions on each kind of database, and what runners on it need."""
    made = Running(await database("evalpool_dataset.migrations"))
    await made.database.write(lambda c: add_run(c, questions=20))
    yield made
    made.stopping.set()
    await asyncio.gather(*made.tasks)

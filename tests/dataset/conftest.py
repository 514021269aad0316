"""The real files that the tests use in place, outside of the repository; runners on databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import OpenDatabase
from tests.dataset.runner_harness import Running
from tests.dataset.stored_run import add_run

SIQA = Path(__file__).resolve().parents[3] / "shared" / "data" / "siqa"


@pytest.fixture(scope="session")
def siqa() -> Path:
    """The folder with Social IQa's questions and the reference's scores."""
    if not SIQA.is_dir():
        pytest.skip("Social IQa is not at ../shared/data/siqa beside the repository")
    return SIQA


@pytest.fixture
async def running(database: OpenDatabase) -> AsyncIterator[Running]:
    """A run of twenty questions on each kind of database, and what runners on it need."""
    made = Running(await database("evalpool_dataset.migrations"))
    await made.database.write(lambda c: add_run(c, questions=20))
    yield made
    made.stopping.set()
    await asyncio.gather(*made.tasks)

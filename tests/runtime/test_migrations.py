"""Every service's migrations make exactly its tables, on both databases."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, inspect

from evalpool.endpoints import PORTS
from evalpool_runtime.database import Database
from evalpool_runtime.migrations import migrate

OpenDatabase = Callable[[str], Awaitable[Database]]

MIGRATED = sorted(
    service
    for service in PORTS
    if importlib.util.find_spec(f"evalpool_{service}.migrations") is not None
)


def schema(service: str) -> ModuleType:
    return importlib.import_module(f"evalpool_{service}.schema")


def names_of_constraints(connection: Connection) -> dict[str, object]:
    """What autogenerate does not compare: primary keys, checks and their places."""
    inspector = inspect(connection)
    return {
        table: (
            inspector.get_pk_constraint(table)["constrained_columns"],
            len(inspector.get_check_constraints(table)),
            sorted(
                (key["referred_table"], tuple(key["constrained_columns"]))
                for key in inspector.get_foreign_keys(table)
            ),
        )
        for table in sorted(inspector.get_table_names())
        if table != "alembic_version"
    }


def test_services_with_tables_are_migrated() -> None:
    assert sorted(PORTS) == MIGRATED


@pytest.mark.parametrize("service", MIGRATED)
async def test_the_migrated_database_equals_the_schema(
    service: str, database: OpenDatabase, tmp_path: Path, database_url: str
) -> None:
    metadata: MetaData = schema(service).metadata
    migrated = await database(f"evalpool_{service}.migrations")

    def differences(connection: Connection) -> object:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        return compare_metadata(context, metadata)

    assert await migrated.write(differences) == []
    by_migration = await migrated.read(names_of_constraints)

    def anew(connection: Connection) -> dict[str, object]:
        for table in reversed(metadata.sorted_tables):
            table.drop(connection)
        metadata.create_all(connection)
        return names_of_constraints(connection)

    assert by_migration == await migrated.write(anew)


@pytest.mark.parametrize("service", MIGRATED)
async def test_migrating_again_changes_nothing(service: str, database: OpenDatabase) -> None:
    package = f"evalpool_{service}.migrations"
    migrated = await database(package)
    before = await migrated.read(names_of_constraints)

    await migrate(migrated, package)

    assert await migrated.read(names_of_constraints) == before


REPLICA = """
import asyncio, sys
from evalpool_runtime.database import Database
from evalpool_runtime.migrations import migrate
async def main():
    database = Database.open(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    await migrate(database, "evalpool_benchmark.migrations")
    await database.close()
asyncio.run(main())
"""


def test_replicas_that_start_at_once_take_turns(database_url: str) -> None:
    replicas = [
        subprocess.Popen(
            [sys.executable, "-c", REPLICA, database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for replica in replicas:
        assert replica.stdout is not None
        assert replica.stdout.readline() == "ready\n"
    for replica in replicas:
        assert replica.stdin is not None
        replica.stdin.write("go\n")
        replica.stdin.flush()
    errors = [replica.communicate()[1] for replica in replicas]
    assert [replica.returncode for replica in replicas] == [0, 0, 0], errors


async def test_services_that_start_at_once_in_one_process_do_not_mix(tmp_path: Path) -> None:
    opened = {name: Database.open(f"sqlite:///{tmp_path / name}.db") for name in MIGRATED}
    try:
        await asyncio.gather(
            *(migrate(opened[name], f"evalpool_{name}.migrations") for name in MIGRATED)
        )
        for name in MIGRATED:
            tables = await opened[name].read(lambda c: set(inspect(c).get_table_names()))
            assert tables == {*schema(name).metadata.tables, "alembic_version"}
    finally:
        for each in opened.values():
            await each.close()


async def test_a_migration_that_fails_leaves_no_trace(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "half_way"
    (package / "versions").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "env.py").write_text(
        "from evalpool_runtime.migrations import run_env\n\nrun_env()\n"
    )
    (package / "versions/0001_first.py").write_text(
        'revision = "0001"\ndown_revision = None\n\n\n'
        "def upgrade():\n"
        "    from alembic import op\n"
        '    op.execute("CREATE TABLE half (id INTEGER)")\n'
        '    raise OSError("pulled the plug")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    opened = Database.open(database_url)
    try:
        with pytest.raises(OSError, match="pulled the plug"):
            await migrate(opened, "half_way")
        assert await opened.read(lambda c: inspect(c).get_table_names()) == []
    finally:
        await opened.close()

"""Alembic migrations, run by each service at its start.

A service's `migrations` package has `env.py` (which calls `run_env`) and `versions/`. Two replicas
that start at once take turns by a lock in the database.
"""

from __future__ import annotations

import importlib.resources
import threading
from pathlib import Path

from alembic import command, context
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from evalpool_runtime.database import Database

# Any constant: the replicas of one service share a database, and services do not.
_ADVISORY_LOCK = 0x6576616C

# Alembic's context is one for the whole process.
_one_at_a_time = threading.Lock()


async def migrate(database: Database, package: str) -> None:
    """Bring a database to the newest version of a service's tables.

    Args:
        database: The service's database.
        package: The migrations' package, such as "evalpool_token.migrations".
    """

    def upgrade(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        with _one_at_a_time:
            config = _config(package)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    await database.write(upgrade)


def revisions(package: str) -> frozenset[str]:
    """The versions of a service's tables that this release knows.

    Args:
        package: The migrations' package, such as "evalpool_token.migrations".
    """
    scripts = ScriptDirectory.from_config(_config(package))
    return frozenset(script.revision for script in scripts.walk_revisions())


def _config(package: str) -> Config:
    config = Config()
    # Values are interpolated by "%".
    config.set_main_option("script_location", str(_location(package)).replace("%", "%%"))
    return config


def run_env() -> None:
    """What every `migrations/env.py` does: run on the connection that `migrate` opened."""
    connection: Connection = context.config.attributes["connection"]
    context.configure(connection=connection, transactional_ddl=False, render_as_batch=True)
    context.run_migrations()


def _location(package: str) -> Path:
    return Path(str(importlib.resources.files(package)))

"""A service's database from outside: read at one moment, whoever writes, and never written."""

from __future__ import annotations

import importlib.resources
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

BUSY_SECONDS = 10.0
"""How long somebody else's lock on a whole SQLite file is waited for; writers have none."""


class UnreadableDatabase(Exception):
    """A database that is not there, is another, or cannot be read; the message says which."""


@contextmanager
def snapshot(url: str, service: str, *, migrations: str, own_table: str) -> Iterator[Connection]:
    """Read a service's database, all of it at one moment.

    On SQLite writers go on meanwhile; the file's log of them grows until the block ends. On
    PostgreSQL it is one transaction, REPEATABLE READ and READ ONLY.

    Args:
        url: `sqlite:///path` or `postgresql+psycopg://…`.
        service: The service's name, for messages.
        migrations: The package of its migrations.
        own_table: A table that its databases have had from the first, and no other service's.

    Raises:
        UnreadableDatabase: It cannot be read, in the block too, or is not of this release.
    """
    shown = f"the {service} service's database"
    try:
        parsed = make_url(url)
        shown += f" {parsed.render_as_string()}"
        engine = _engine(parsed, shown)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        # The URL may hold a password.
        raise UnreadableDatabase(
            f"{shown} cannot be opened; give a URL such as sqlite:///path or "
            "postgresql+psycopg://user:password@host/name"
        ) from error
    try:
        with engine.connect() as connection:
            _require_service(connection, shown, service, migrations, own_table)
            yield connection
    except DBAPIError as error:
        reason = str(error.orig).strip().partition("\n")[0]
        raise UnreadableDatabase(f"{shown} cannot be read: {reason}") from error
    except ValueError as error:
        # A column's type cannot make sense of what is stored.
        raise UnreadableDatabase(f"{shown} has a value that is none: {error}") from error
    finally:
        engine.dispose()


def _engine(url: URL, shown: str) -> Engine:
    if url.get_backend_name() != "sqlite":
        engine = create_engine(
            url,
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={} if "connect_timeout" in url.query else {"connect_timeout": 10},
        )
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    path = Path(url.database or "")
    if not path.is_file():
        raise UnreadableDatabase(f"{shown} is not there; name the data directory, or the database")

    def connect() -> sqlite3.Connection:
        address = f"file:{quote(str(path.absolute()))}?mode=ro"
        return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _require_service(
    connection: Connection, shown: str, service: str, migrations: str, own_table: str
) -> None:
    tables = set(inspect(connection).get_table_names())
    if not {own_table, "alembic_version"} <= tables:
        raise UnreadableDatabase(f"{shown} has no tables of this service; name the right database")
    found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    scripts = ScriptDirectory(str(importlib.resources.files(migrations)))
    newest = scripts.get_current_head()
    if found not in {script.revision for script in scripts.walk_revisions()}:
        raise UnreadableDatabase(
            f"{shown} is of a newer release than this command (its tables are {found}, and "
            f"{newest} is the newest known); use that release's"
        )
    if found != newest:
        raise UnreadableDatabase(
            f"{shown} is of an older release (its tables are {found}, and this release's are "
            f"{newest}); `evalpool up`, or `evalpool serve {service}`, migrates it"
        )

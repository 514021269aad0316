"""Databases: one interface over SQLite and PostgreSQL.

Stores are plain synchronous functions on a `sqlalchemy.Connection`; `Database` runs them in
threads, one transaction each. On SQLite writers take turns on a thread of their own (`BEGIN
IMMEDIATE`), so that nobody waits for a lock by time-out, and readers have connections that cannot
write. On PostgreSQL both come from one pool, at READ COMMITTED: lock the rows that you decide on.

An error of the database goes to the log, and what is stored must not: no parameter and no value of
a row is left in its text.
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from evalpool_runtime.errors import Unavailable, reasons

T = TypeVar("T")

READERS = 4
POSTGRES_CONNECTIONS = 8
ATTEMPTS = 6
# serialization_failure, deadlock_detected
_RETRYABLE_SQLSTATES = {"40001", "40P01"}
# connection_exception, insufficient_resources, operator_intervention; by their first two characters
_OUT_OF_REACH_CLASSES = {"08", "53", "57"}
# PostgreSQL's data_exception, whose sentence quotes the value.
_DATA_EXCEPTION_CLASS = "22"

# A server that has vanished must not hold threads for hours. In seconds, the last in milliseconds;
# the URL may say otherwise.
_POSTGRES_WAITS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}

_log = structlog.get_logger("evalpool.database")


class Database:
    """One service's database."""

    def __init__(self, writer: Engine, reader: Engine, *, writers: int) -> None:
        self._writer = writer
        self._reader = reader
        self._write_threads = ThreadPoolExecutor(writers, thread_name_prefix="database-write")
        self._read_threads = ThreadPoolExecutor(READERS, thread_name_prefix="database-read")

    @classmethod
    def open(cls, url: str | URL, *, durable: bool = False) -> Database:
        """Open a database.

        Args:
            url: `sqlite:///path` or `postgresql+psycopg://…`.
            durable: On SQLite, sync to disk at every commit (`synchronous=FULL`): for money. A
                power cut may otherwise cost the last commits; a killed process never does.
        """
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            writer = _sqlite_engine(parsed, durable=durable, read_only=False)
            reader = _sqlite_engine(parsed, durable=durable, read_only=True)
            return cls(writer, reader, writers=1)
        engine = create_engine(
            parsed,
            poolclass=QueuePool,
            pool_size=POSTGRES_CONNECTIONS,
            max_overflow=READERS,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={k: v for k, v in _POSTGRES_WAITS.items() if k not in parsed.query},
        )
        return cls(engine, engine, writers=POSTGRES_CONNECTIONS)

    @property
    def engine(self) -> Engine:
        """The engine that may write, for migrations."""
        return self._writer

    @property
    def dialect(self) -> str:
        """The kind of database: "sqlite" or "postgresql"."""
        return self._writer.dialect.name

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction that may write.

        Committed when it returns, rolled back when it raises. It may run more than once where the
        database asks for that, so it must have no effect but its SQL.

        Raises:
            Unavailable: The database is out of reach, or its disk is full. Where the connection was
                lost at the commit, it may have been committed: `once` tells on the next try.
        """
        return await self._run(self._write_threads, lambda: self._transact(self._writer, work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction that only reads.

        Raises:
            Unavailable: The database is out of reach.
        """
        return await self._run(self._read_threads, lambda: self._transact(self._reader, work))

    def read_here(self, work: Callable[[Connection], T]) -> T:
        """As `read`, in the calling thread, which must not be an event loop's."""
        return self._transact(self._reader, work)

    async def close(self) -> None:
        """Let running transactions end and close all connections."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._write_threads.shutdown(wait=True)
        self._read_threads.shutdown(wait=True)
        self._writer.dispose()
        self._reader.dispose()

    @staticmethod
    async def _run(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        # Shielded: a caller that goes away must not leave its transaction's outcome unknown to us.
        # In the caller's context: the work may ask which call it serves.
        run = contextvars.copy_context().run
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(threads, run, work))

    @staticmethod
    def _transact(engine: Engine, work: Callable[[Connection], T]) -> T:
        for attempt in range(ATTEMPTS):
            try:
                with engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                if _sqlstate(error) in _RETRYABLE_SQLSTATES and attempt < ATTEMPTS - 1:
                    continue
                _hide_values(error)
                if _is_out_of_reach(error):
                    raise _unavailable(error) from error
                raise
        raise AssertionError("unreachable")


def _sqlstate(error: DBAPIError) -> str:
    """PostgreSQL's code of an error; empty on SQLite, and where no connection was made."""
    return getattr(error.orig, "sqlstate", None) or ""


def _is_out_of_reach(error: DBAPIError) -> bool:
    """Whether the same transaction may go well at another time, without anybody changing it."""
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    state = _sqlstate(error)
    # Without a connection there is no code.
    return (
        error.connection_invalidated
        or (isinstance(error, OperationalError) and not state)
        or state in _RETRYABLE_SQLSTATES
        or state[:2] in _OUT_OF_REACH_CLASSES
    )


def _unavailable(error: DBAPIError) -> Unavailable:
    _log.warning("the database is out of reach", reason=str(error.orig).partition("\n")[0])
    return Unavailable(
        reasons.ERROR_REASON_UNAVAILABLE,
        "the service's database is out of reach or its disk is full; try again",
        retry_after=1.0,
    )


def _hide_values(error: DBAPIError) -> None:
    """Leave of PostgreSQL's text the sentence only: its details show the row."""
    if error.orig is None or isinstance(error.orig, sqlite3.Error):
        return
    sentence = str(error.orig).partition("\n")[0]
    if _sqlstate(error).startswith(_DATA_EXCEPTION_CLASS):
        sentence = "a value does not fit its column"
    error.orig.args = (sentence,)
    error.args = (f"({type(error.orig).__name__}) {sentence}",)


def _sqlite_engine(url: URL, *, durable: bool, read_only: bool) -> Engine:
    # NullPool would reopen the file each time; one connection a thread is what SQLite likes.
    engine = create_engine(
        url,
        poolclass=QueuePool if url.database else NullPool,
        pool_size=READERS if read_only else 1,
        max_overflow=0,
        hide_parameters=True,
        connect_args={"check_same_thread": False, "timeout": 30.0},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver must not begin transactions by itself: `begin` below does.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        cursor.execute(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine

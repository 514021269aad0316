"""Databases: one interface over SQLite and PostgreSQL.

Stores are plain synchronous functions on a `sqlalchemy.Connection`; `Database` runs them in
threads, one transaction each. On SQLite writers take turns on a thread of their own (`BEGIN
IMMEDIATE`), so that nobody waits for a lock by time-out, and readers have connections that cannot
write. On PostgreSQL both come from one pool, at READ COMMITTED: lock the rows that you decide on.
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")

READERS = 4
POSTGRES_CONNECTIONS = 8
ATTEMPTS = 6
# serialization_failure, deadlock_detected
_RETRYABLE_SQLSTATES = {"40001", "40P01"}


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
        """
        return await self._run(self._write_threads, lambda: self._transact(self._writer, work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction that only reads."""
        return await self._run(self._read_threads, lambda: self._transact(self._reader, work))

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
                last = attempt == ATTEMPTS - 1
                if last or getattr(error.orig, "sqlstate", None) not in _RETRYABLE_SQLSTATES:
                    raise
        raise AssertionError("unreachable")


def _sqlite_engine(url: URL, *, durable: bool, read_only: bool) -> Engine:
    # NullPool would reopen the file each time; one connection a thread is what SQLite likes.
    engine = create_engine(
        url,
        poolclass=QueuePool if url.database else NullPool,
        pool_size=READERS if read_only else 1,
        max_overflow=0,
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

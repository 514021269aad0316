"""SQLite databases of several processes, all as they were at one moment.

Copied one after another, they would tell of different moments, and whatever the order, one of two
neighbours would know of what the other has not done yet. So for some milliseconds nobody may
commit to any of them, and in these a reader of each begins. What such a reader sees stays as it is,
however long it reads and whoever writes meanwhile (SQLite's write-ahead log keeps both).

What is held together is what a power cut at that moment would have left, and from that the services
go on.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from .errors import BackupError

# Less than the 30 s for which the services' own writers wait.
_LONGEST_WAIT_SECONDS = 10.0


@contextmanager
def one_moment(databases: Sequence[Path]) -> Iterator[list[sqlite3.Connection]]:
    """Read databases as of one moment, for the length of a block; others may write all the while.

    Args:
        databases: Their files, those of callers before those of whom they call, so that those who
            wait for it are held up the shortest where most depends on them.

    Yields:
        A connection to each, in a transaction that reads.

    Raises:
        BackupError: One is missing or is no database, or one is in a long transaction.
    """
    deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
    with ExitStack() as readers, ExitStack() as holders:
        found = [readers.enter_context(closing(_open(path, 0.0))) for path in databases]
        for path in databases:
            left = max(deadline - time.monotonic(), 0.0)
            holder = holders.enter_context(closing(_open(path, left)))
            _hold(holder, path)
        for reader in found:
            reader.execute("BEGIN")
            # The transaction begins with its first look at the file.
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        holders.close()
        yield found


def _open(path: Path, wait_seconds: float) -> sqlite3.Connection:
    try:
        # Not made where it is missing; no transaction by itself.
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=wait_seconds,
            isolation_level=None,
        )
    except sqlite3.OperationalError as error:
        raise BackupError(f"{path} cannot be opened: {error}") from error


def _hold(connection: sqlite3.Connection, path: Path) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise BackupError(
                f"{path} is in the midst of a long transaction, such as the loading of a large "
                "dataset; try again when it is over"
            ) from error
        raise BackupError(f"{path} cannot be read: {error}") from error

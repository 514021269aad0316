"""Databases of several processes, read as of one moment."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from evalpool.backup.errors import BackupError
from evalpool.backup.moment import one_moment


def made(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE steps (number INTEGER PRIMARY KEY)")
        database.execute("INSERT INTO steps VALUES (0)")
        database.commit()
    return path


def last(database: sqlite3.Connection) -> int:
    (number,) = database.execute("SELECT max(number) FROM steps").fetchone()
    return int(number)


@pytest.fixture
def caller(tmp_path: Path) -> Path:
    return made(tmp_path / "caller.db")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return made(tmp_path / "ledger.db")


@contextmanager
def working(*databases: Path) -> Iterator[None]:
    """Write step after step, each into one database and then into the next, as calls do."""
    stop, begun = threading.Event(), threading.Event()

    def work() -> None:
        opened = [sqlite3.connect(path, timeout=30, isolation_level=None) for path in databases]
        number = 0
        while not stop.is_set():
            number += 1
            for database in opened:
                database.execute("INSERT INTO steps VALUES (?)", (number,))
            begun.set()
        for database in opened:
            database.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        begun.wait()
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("order", [1, -1], ids=["caller first", "ledger first"])
def test_no_database_knows_of_what_another_has_not_done_whichever_is_first(
    caller: Path, ledger: Path, order: int
) -> None:
    # As a payout is: planned, and then paid. Copied one after another with the caller first, the
    # ledger has paid what the caller has not planned; the other way round, the caller has read what
    # the ledger has not written.
    between = [made(caller.with_name(f"between-{number}.db")) for number in range(12)]
    databases = [caller, *between, ledger][::order]
    with working(caller, ledger):
        for _ in range(20):
            with one_moment(databases) as seen:
                planned, *_, paid = (last(each) for each in seen[::order])
            assert paid <= planned <= paid + 1


def test_what_is_seen_stays_while_others_write(caller: Path, ledger: Path) -> None:
    with (
        one_moment([caller, ledger]) as seen,
        closing(sqlite3.connect(caller, timeout=0)) as writer,
    ):
        writer.execute("INSERT INTO steps VALUES (1)")
        writer.commit()
        assert [last(each) for each in seen] == [0, 0]


def test_a_long_transaction_of_one_is_told_by_its_name_and_holds_up_no_other_for_long(
    caller: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalpool.backup.moment._LONGEST_WAIT_SECONDS", 0.0)
    with closing(sqlite3.connect(ledger, isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")
        with (
            pytest.raises(BackupError, match=r"ledger\.db is in the midst of a long transaction"),
            one_moment([caller, ledger]),
        ):
            pass
    with closing(sqlite3.connect(caller, timeout=0)) as writer:
        writer.execute("INSERT INTO steps VALUES (1)")


def test_a_file_that_is_no_database_is_told_by_its_name(caller: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(b"no database at all, by any means" * 64)
    with pytest.raises(BackupError, match=r"other\.db cannot be read"), one_moment([caller, other]):
        pass
    with (
        pytest.raises(BackupError, match=r"none\.db cannot be opened"),
        one_moment([caller, tmp_path / "none.db"]),
    ):
        pass
    assert not (tmp_path / "none.db").exists()

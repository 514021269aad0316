"""Databases that an earlier version has left, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial
from importlib.resources import files
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Column, Connection, MetaData, Table, insert

from evalpool_benchmark.entry import EntryState
from evalpool_benchmark.pool import SubjectKind
from evalpool_benchmark.store import entries, pools, results
from evalpool_runtime.columns import Json
from evalpool_runtime.database import Database
from evalpool_runtime.migrations import migrate

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PACKAGE = "evalpool_benchmark.migrations"


def move(connection: Connection, step: Callable[[Config, str], None]) -> None:
    """Bring the tables to the first version."""
    config = Config()
    config.set_main_option("script_location", str(files(PACKAGE)))
    config.attributes["connection"] = connection
    step(config, "0001")


@pytest.fixture
async def first_version(database_url: str) -> AsyncIterator[Database]:
    """A database as the first version of the service made it."""
    database = Database.open(database_url)

    await database.write(partial(move, step=command.upgrade))
    yield database
    await database.close()


POOL = {
    "id": "pool",
    "sequence": 1,
    "title": "",
    "funder": "funder",
    "funds": 100,
    "dataset": "siqa",
    "dataset_version": "version",
    "dataset_owner": "owner",
    "question_count": 10,
    "evaluator": "letter",
    "allocation": "Equal",
    "tie_rule": "earliest",
    "start_time": NOW,
    "end_time": NOW,
    "grace_microseconds": 0,
    "minimum_score": "",
    "max_entries_per_day": 0,
    "phase": "running",
}


def entry(id: str, order: int, state: str, reason_code: str = "", **values: Any) -> dict[str, Any]:
    return {
        "id": id,
        "pool": "pool",
        "subject": f"subject of {id}",
        "subject_name": "",
        "participant": "somebody",
        "state": state,
        "join_time": NOW,
        "join_order": order,
        "attempt": 1,
        "prize_free": False,
        "revision": 3,
        "run": "run",
        "score_cursor": 2,
        "correct": 0,
        "done": 0,
        "total": 10,
        "queue_position": 0,
        "reason": "",
        "reason_code": reason_code,
        "machinery_failed": False,
        "end_time": NOW,
        **values,
    }


def fill(connection: Connection) -> None:
    rows = [
        entry("lost", 1, "failed", "WORKER_LOST", machinery_failed=True),
        entry("broken", 2, "failed", "INVALID_GGUF"),
        entry("scored", 3, "scored", correct=7, done=10),
    ]
    for name, values in (("pools", [POOL]), ("entries", rows)):
        connection.execute(insert(Table(name, MetaData(), autoload_with=connection)), values)


async def test_what_the_machinery_had_failed_is_tried_again_and_the_rest_stays(
    first_version: Database,
) -> None:
    await first_version.write(fill)

    await migrate(first_version, PACKAGE)

    due = await first_version.read(partial(entries.due, now=NOW + timedelta(seconds=1)))
    assert [(entry.id, entry.failures, entry.end_time) for entry in due] == [("lost", 1, None)]
    assert due[0].machinery_failed
    for id, state in (("broken", EntryState.FAILED), ("scored", EntryState.SCORED)):
        kept = await first_version.read(partial(entries.require, entry_id=id))
        assert (kept.state, kept.is_final, kept.failures) == (state, True, 0)
        assert kept.end_time == NOW


async def test_a_plan_keeps_the_batches_that_it_may_have_been_sent_in(
    first_version: Database,
) -> None:
    def plan(connection: Connection) -> None:
        lines = [
            {
                "pool": "pool",
                "line": line,
                "entry": "entry",
                "rank": 1,
                "recipient": "somebody",
                "quantity": "1",
                "contribution": "",
                "transfer": "",
            }
            for line in (0, 9_999, 10_000)
        ]
        payouts = Table("payouts", MetaData(), autoload_with=connection)
        connection.execute(insert(payouts), lines)

    await first_version.write(fill)
    await first_version.write(plan)

    await migrate(first_version, PACKAGE)

    kept = await first_version.read(partial(results.plan_of, pool="pool"))
    assert [(line.line, line.batch) for line in kept] == [(0, 0), (9_999, 0), (10_000, 1)]


async def test_until_points_came_each_right_answer_was_one(first_version: Database) -> None:
    row = {
        "rank": 1,
        "entry": "scored",
        "subject": "subject of scored",
        "subject_name": "",
        "participant": "somebody",
        "state": "scored",
        "correct": 7,
        "done": 10,
        "total": 10,
        "tied_with": [],
        "reward": "100",
        "prize_free": False,
        "ineligible_reason": "",
        "join_time": NOW.isoformat(),
    }

    def keep_leaderboards(connection: Connection) -> None:
        column = Column("rows", Json)
        snapshots = Table("snapshots", MetaData(), column, autoload_with=connection)
        boards = [
            {
                "pool": "pool",
                "revision": revision,
                "time": NOW,
                "final": False,
                "funds": "100",
                "rows": rows,
            }
            for revision, rows in ((1, []), (2, [row]))
        ]
        connection.execute(insert(snapshots), boards)

    await first_version.write(fill)
    await first_version.write(keep_leaderboards)

    await migrate(first_version, PACKAGE)

    kept = await first_version.read(partial(entries.require, entry_id="scored"))
    assert (kept.points, kept.full_marks, kept.score) == (7, 1, Fraction(7, 10))
    empty, board = await first_version.read(
        partial(results.snapshots_after, pool="pool", revision=0, limit=2)
    )
    assert empty.rows == ()
    assert [(row.points, row.full_marks, row.score) for row in board.rows] == [(7, 1, 0.7)]
    pool = await first_version.read(partial(pools.require, pool_id="pool"))
    assert pool.subject_kind is SubjectKind.MODEL


async def test_the_newest_tables_go_back_to_the_first_version_and_come_again(
    first_version: Database,
) -> None:
    await first_version.write(fill)
    await migrate(first_version, PACKAGE)

    await first_version.write(partial(move, step=command.downgrade))
    await migrate(first_version, PACKAGE)

    kept = await first_version.read(partial(entries.require, entry_id="scored"))
    assert (kept.points, kept.full_marks) == (7, 1)

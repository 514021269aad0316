"""Whose questions are taken up next, and how many come before a run's first, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import Connection

from evalpool_dataset.claiming import Claiming
from evalpool_dataset.parts import installed_kinds
from evalpool_dataset.run import RunState
from evalpool_dataset.store import evaluations, runs, turns
from evalpool_runtime.database import Database
from tests.conftest import OpenDatabase
from tests.dataset.stored_run import NOW, add_run, lapse_at

LEASE = timedelta(seconds=60)
CLAIMING = Claiming(installed_kinds(), "h", LEASE, chunk_questions=4)
QUESTIONS = {"a": 9, "b": 3, "c": 6, "d": 2}


@pytest.fixture
async def stored(database: OpenDatabase) -> Database:
    """Four runs of other lengths, oldest first."""
    made = await database("evalpool_dataset.migrations")
    for run, questions in QUESTIONS.items():
        await made.write(partial(add_run, questions=questions, run=run, dataset=f"d{run}"))
    return made


def positions(connection: Connection) -> dict[str, int]:
    return {
        run: turns.questions_before(connection, runs.require_run(connection, run), NOW, 4)
        for run in QUESTIONS
    }


def claim(connection: Connection) -> tuple[str, int]:
    """Take up the next questions; gives whose and how many."""
    chunk = CLAIMING.next_chunk(connection, NOW)
    assert chunk is not None
    return chunk.run.id, len(chunk.claims)


async def test_as_many_questions_come_before_a_run_as_are_told(stored: Database) -> None:
    first = await stored.write(claim)
    told = await stored.read(positions)

    claimed = {first[0]: 0}
    under_way = first[1]
    while len(claimed) < len(QUESTIONS):
        run, questions = await stored.write(claim)
        claimed.setdefault(run, under_way)
        under_way += questions

    assert first == ("a", 4)
    assert told == claimed == {"a": 0, "b": 4, "c": 7, "d": 11}


async def test_the_position_moves_as_others_are_answered(stored: Database) -> None:
    def end(connection: Connection) -> None:
        claim(connection)
        run = runs.require_run(connection, "a")
        evaluations.fail_open(connection, "a", "no", "MODEL_LOAD_FAILED")
        runs.save_run(connection, replace(run, state=RunState.FAILED, failed=9))

    before = await stored.read(positions)
    await stored.write(end)
    after = await stored.read(positions)

    assert before == {"a": 0, "b": 4, "c": 7, "d": 11}
    assert after == {"a": 0, "b": 0, "c": 3, "d": 7}


async def test_a_run_that_pauses_keeps_no_other_waiting(stored: Database) -> None:
    late = NOW + LEASE

    def pause(connection: Connection) -> None:
        _, questions = claim(connection)
        ids = [number for number, _ in evaluations.leased(connection, 10, by=late)]
        assert len(ids) == questions == 4
        evaluations.take_back(connection, ids, lapse_at(late), "WORKER_LOST")
        # The rest of it too.
        claims = evaluations.claim_some(connection, "a", holder="h", now=NOW, lease=LEASE, limit=10)
        rest = [held.id for held in claims]
        evaluations.take_back(connection, rest, lapse_at(late), "WORKER_LOST")

    await stored.write(pause)

    assert await stored.read(positions) == {"a": 0, "b": 0, "c": 3, "d": 7}


async def test_questions_at_the_herd_wait_for_the_others_there_only(stored: Database) -> None:
    for _ in range(3):
        await stored.write(claim)

    # "a" has 4 there, "b" 3 and "c" 4.
    assert await stored.read(positions) == {"a": 7, "b": 8, "c": 7, "d": 11}


async def test_only_a_queued_run_has_a_position(stored: Database) -> None:
    def begin(connection: Connection) -> None:
        run = runs.require_run(connection, "d")
        runs.save_run(connection, replace(run, state=RunState.RUNNING))

    await stored.write(begin)

    assert (await stored.read(positions))["d"] == 0

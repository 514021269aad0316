"""Snapshots and payout plans, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy.exc import IntegrityError

from evalpool_benchmark.decisions import decide
from evalpool_benchmark.entry import EntryState
from evalpool_benchmark.funding import Credit
from evalpool_benchmark.leaderboard import Leaderboard, Row
from evalpool_benchmark.payout import PayoutLine
from evalpool_benchmark.pool import Pool
from evalpool_benchmark.store import results
from evalpool_runtime.database import Database

NOW = datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC)


@pytest.fixture
async def pool(store: Database) -> str:
    credit = Credit("pool", "funder", 100, (), NOW, 1)
    made = Pool(
        id="pool",
        sequence=1,
        title="",
        funder="funder",
        dataset="siqa",
        dataset_version="version",
        dataset_owner="owner",
        question_count=10,
        evaluator="letter",
        allocation="Equal",
        tie_rule="split",
        start_time=NOW,
        end_time=NOW.replace(year=2027),
        grace=NOW - NOW,
    )
    await store.write(partial(decide, credit=credit, decision=made, cursor=1))
    return "pool"


def board(revision: int) -> Leaderboard:
    row = Row(
        rank=1,
        entry="entry",
        subject="subject",
        subject_name="Ein Modell – 模型",
        participant="somebody",
        state=EntryState.SCORED,
        correct=3,
        done=10,
        total=10,
        points=72,
        full_marks=10,
        tied_with=("another",),
        reward=10**39 - 1,
        prize_free=False,
        ineligible_reason="",
        join_time=NOW,
    )
    return Leaderboard("pool", (row,), NOW, revision, final=False, funds=10**39 - 1)


async def test_a_snapshot_is_kept_exactly(store: Database, pool: str) -> None:
    await store.write(partial(results.add_snapshot, board=board(1)))
    assert await store.read(partial(results.newest_snapshot, pool=pool)) == board(1)


async def test_a_snapshot_is_never_overwritten(store: Database, pool: str) -> None:
    await store.write(partial(results.add_snapshot, board=board(1)))
    with pytest.raises(IntegrityError):
        await store.write(partial(results.add_snapshot, board=board(1)))


async def test_snapshots_are_read_from_a_revision_on(store: Database, pool: str) -> None:
    for revision in (1, 2, 3):
        await store.write(partial(results.add_snapshot, board=board(revision)))
    found = await store.read(partial(results.snapshots_after, pool=pool, revision=1, limit=10))
    assert [each.revision for each in found] == [2, 3]
    assert await store.read(partial(results.newest_revision, pool=pool)) == 3


async def test_a_plan_is_cut_once(store: Database, pool: str) -> None:
    lines = [PayoutLine(line, "entry", 1, "somebody", 5, "") for line in range(3)]
    await store.write(partial(results.add_plan, pool=pool, lines=lines))
    cut = await store.write(partial(results.cut_plan, pool=pool, size=2))
    assert [line.batch for line in cut] == [0, 0, 1]
    assert await store.write(partial(results.cut_plan, pool=pool, size=1)) == cut
    assert await store.read(partial(results.plan_of, pool=pool)) == cut


async def test_a_plan_is_kept_once_and_gets_its_receipts(store: Database, pool: str) -> None:
    lines = [
        PayoutLine(0, "entry", 1, "somebody", 10**39 - 1, ""),
        PayoutLine(1, "", 0, "payer", 1, "transfer"),
    ]
    await store.write(partial(results.add_plan, pool=pool, lines=lines))
    assert await store.read(partial(results.plan_of, pool=pool)) == lines
    with pytest.raises(IntegrityError):
        await store.write(partial(results.add_plan, pool=pool, lines=lines))
    await store.write(partial(results.add_receipts, pool=pool, receipts={1: "receipt"}))
    kept = await store.read(partial(results.plan_of, pool=pool))
    assert [line.transfer for line in kept] == ["", "receipt"]

"""A pool's life by the clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_benchmark.entry import Entry, EntryState
from evalpool_benchmark.pool import Phase, Pool, PoolState, freeze, last_freeze_time, settle

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=30)
POOL = Pool(
    id="pool",
    sequence=1,
    title="",
    funder="funder",
    dataset="siqa",
    dataset_version="v",
    dataset_owner="owner",
    question_count=10,
    evaluator="loglikelihood",
    allocation="Equal",
    tie_rule="earliest",
    start_time=START,
    end_time=END,
    grace=timedelta(hours=24),
)
MOMENT = timedelta(microseconds=1)


def entry(state: EntryState, *, tried_again: bool = False, machinery_failed: bool = False) -> Entry:
    return Entry(
        id="entry",
        pool="pool",
        subject="subject",
        subject_name="",
        participant="somebody",
        state=state,
        join_time=START,
        join_order=1,
        retry_time=END if tried_again else None,
        machinery_failed=machinery_failed,
    )


FAILED = entry(EntryState.FAILED, tried_again=True)
FAILED_BY_MACHINERY = entry(EntryState.FAILED, tried_again=True, machinery_failed=True)
RUNNING_AGAIN = entry(EntryState.RUNNING, machinery_failed=True)


def test_a_pool_opens_and_closes_by_its_times() -> None:
    assert POOL.state(START - MOMENT) is PoolState.SCHEDULED
    assert POOL.state(START) is PoolState.OPEN
    assert POOL.state(END - MOMENT) is PoolState.OPEN
    assert POOL.state(END) is PoolState.CLOSING


@given(st.timedeltas(timedelta(days=-100), timedelta(days=100)))
def test_once_frozen_the_clock_changes_nothing(offset: timedelta) -> None:
    frozen = freeze(POOL, END)
    assert frozen.state(END + offset) is PoolState.PAYING
    assert settle(frozen, END, returned=False).state(END + offset) is PoolState.PAID
    assert settle(frozen, END, returned=True).state(END + offset) is PoolState.RETURNED


def test_a_pool_is_frozen_and_settled_once_and_in_order() -> None:
    with pytest.raises(ValueError, match="open"):
        freeze(POOL, END - MOMENT)
    with pytest.raises(ValueError, match="closing"):
        settle(POOL, END, returned=False)
    frozen = freeze(POOL, END)
    with pytest.raises(ValueError, match="paying"):
        freeze(frozen, END)
    with pytest.raises(ValueError, match="paid"):
        settle(settle(frozen, END, returned=False), END, returned=True)


def test_a_contribution_is_judged_at_the_transfers_time_until_the_freeze() -> None:
    assert POOL.takes_contribution(END - MOMENT)
    assert not POOL.takes_contribution(END)
    assert not freeze(POOL, END).takes_contribution(END - MOMENT)
    assert not replace(POOL, phase=Phase.PAID).takes_contribution(START)


@pytest.mark.parametrize(
    ("entries", "unreachable", "wait"),
    [
        ([], True, timedelta()),
        ([entry(EntryState.SCORED), entry(EntryState.WITHDRAWN)], True, timedelta()),
        ([entry(EntryState.FAILED)], False, timedelta()),
        ([entry(EntryState.SCORED), entry(EntryState.RUNNING)], False, timedelta(hours=24)),
        ([entry(EntryState.SUBMITTED)], False, timedelta(hours=24)),
        ([entry(EntryState.RUNNING)], True, timedelta(days=7)),
        ([FAILED], False, timedelta(hours=24)),
        ([FAILED], True, timedelta(days=7)),
        ([FAILED_BY_MACHINERY], False, timedelta(days=7)),
        ([RUNNING_AGAIN], False, timedelta(days=7)),
    ],
)
def test_what_is_not_final_decides_how_long_the_end_waits(
    entries: list[Entry], unreachable: bool, wait: timedelta
) -> None:
    assert last_freeze_time(POOL, entries, unreachable=unreachable) == END + wait

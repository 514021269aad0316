"""How scores move an entry on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool.values import parse_transfer_id
from evalpool_benchmark.entry import (
    FINAL,
    Entry,
    EntryState,
    RunState,
    Score,
    bind,
    cut_off,
    disqualify,
    enter_again,
    entry_id,
    fail,
    follow,
    withdraw,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SUBMITTED = Entry(
    id="entry",
    pool="pool",
    subject="subject",
    subject_name="a model",
    participant="somebody",
    state=EntryState.SUBMITTED,
    join_time=NOW,
    join_order=1,
)


def score(cursor: int, state: RunState, done: int = 0, **changes: object) -> Score:
    made = Score(run="run", cursor=cursor, state=state, correct=done // 2, done=done, total=10)
    return replace(made, **changes)  # type: ignore[arg-type]


SCORES = st.builds(
    score,
    st.integers(1, 30),
    st.sampled_from(RunState),
    st.integers(0, 10),
    reason_code=st.sampled_from(["INVALID_GGUF", "EVALUATION_FAILED", ""]),
)


def test_an_entry_goes_through_its_states() -> None:
    entry = bind(SUBMITTED, score(1, RunState.QUEUED, queue_position=40), NOW)
    assert (entry.state, entry.run, entry.queue_position) == (EntryState.QUEUED, "run", 40)
    entry = follow(entry, score(2, RunState.RUNNING, 4), NOW)
    assert (entry.state, entry.done, entry.correct, entry.queue_position) == (
        EntryState.RUNNING,
        4,
        2,
        0,
    )
    entry = follow(entry, score(3, RunState.COMPLETE, 10), NOW)
    assert (entry.state, entry.done, entry.end_time) == (EntryState.SCORED, 10, NOW)
    assert entry.revision == 4


def test_a_run_that_is_complete_already_scores_the_entry_at_once() -> None:
    assert bind(SUBMITTED, score(9, RunState.COMPLETE, 10), NOW).state is EntryState.SCORED


@given(st.lists(SCORES, max_size=12), st.randoms())
def test_scores_late_twice_or_out_of_order_change_nothing_that_newer_ones_said(
    scores: list[Score], random: object
) -> None:
    entry = bind(SUBMITTED, score(0, RunState.QUEUED), NOW)
    for each in scores:
        moved = follow(entry, each, NOW)
        if moved is entry:
            continue
        assert each.cursor > entry.score_cursor
        assert moved.revision == entry.revision + 1
        assert follow(moved, each, NOW) is moved, "the same again changes nothing"
        entry = moved
    assert entry.is_final == (entry.end_time is not None)


@given(SCORES)
def test_what_is_withdrawn_or_disqualified_stays_so(newer: Score) -> None:
    running = bind(SUBMITTED, score(0, RunState.RUNNING, 3), NOW)
    for ended in (withdraw(running, NOW), disqualify(running, "a copy", NOW)):
        assert follow(ended, newer, NOW) is ended


@given(SCORES)
def test_a_score_stays_once_complete(newer: Score) -> None:
    complete = bind(SUBMITTED, score(0, RunState.COMPLETE, 10), NOW)
    assert follow(complete, newer, NOW) is complete


def test_a_score_of_another_run_is_not_the_entrys() -> None:
    entry = bind(SUBMITTED, score(1, RunState.RUNNING), NOW)
    assert follow(entry, score(2, RunState.COMPLETE, 10, run="another"), NOW) is entry


def test_a_failure_of_the_subject_is_final_and_one_of_the_machinery_can_mend() -> None:
    running = bind(SUBMITTED, score(1, RunState.RUNNING, 3), NOW)
    broken = follow(
        running,
        score(2, RunState.FAILED, reason="no GGUF", reason_code="INVALID_GGUF"),
        NOW,
    )
    assert (broken.state, broken.reason, broken.reason_code) == (
        EntryState.FAILED,
        "no GGUF",
        "INVALID_GGUF",
    )
    assert not broken.machinery_failed
    assert follow(broken, score(3, RunState.RUNNING), NOW) is broken
    lost = follow(running, score(2, RunState.FAILED, reason_code="EVALUATION_FAILED"), NOW)
    assert lost.machinery_failed
    assert follow(lost, score(3, RunState.COMPLETE, 10), NOW).state is EntryState.SCORED


def test_an_unfunded_run_waits_with_its_reason() -> None:
    entry = bind(SUBMITTED, score(1, RunState.UNFUNDED, reason="the hold was refused"), NOW)
    assert entry.state is EntryState.QUEUED
    assert entry.reason == "the hold was refused"
    assert entry.machinery_failed
    entry = follow(entry, score(2, RunState.RUNNING, 1), NOW)
    assert (entry.reason, entry.machinery_failed) == ("", False)


def test_entering_again_begins_a_new_attempt_that_old_scores_do_not_touch() -> None:
    first = bind(SUBMITTED, score(5, RunState.FAILED, reason_code="INVALID_GGUF"), NOW)
    again = enter_again(first, "a model", 8, NOW)
    assert again.state is EntryState.SUBMITTED
    assert (again.attempt, again.join_order, again.end_time, again.reason) == (2, 8, None, "")
    assert again.benchmark_request == "entry:2" != first.benchmark_request
    assert follow(again, score(6, RunState.COMPLETE, 10), NOW) is again
    bound = bind(again, score(5, RunState.QUEUED), NOW)
    assert bound.state is EntryState.QUEUED
    assert follow(bound, score(5, RunState.FAILED), NOW) is bound


def test_what_the_end_cuts_off_keeps_its_counts_and_says_why() -> None:
    running = bind(SUBMITTED, score(1, RunState.RUNNING, 6), NOW)
    ended = cut_off(running, NOW)
    assert (ended.state, ended.done, ended.reason_code) == (EntryState.FAILED, 6, "POOL_CLOSED")
    assert ended.is_cut_off
    assert not ended.machinery_failed
    assert follow(ended, score(2, RunState.COMPLETE, 10), NOW) is ended


@pytest.mark.parametrize(
    ("code", "machinery"), [("DIGEST_MISMATCH", False), ("NO_WORKER", True), ("", True)]
)
def test_the_reason_says_whose_failure_it_is(code: str, machinery: bool) -> None:
    assert fail(SUBMITTED, "why", code, NOW).machinery_failed is machinery


def test_there_is_one_entry_id_for_each_pool_and_subject() -> None:
    ids = {entry_id(pool, subject) for pool in ("a", "b") for subject in ("c", "d", "")}
    assert len(ids) == 6
    assert all(parse_transfer_id(each) for each in ids)


def test_every_state_is_in_flight_or_final() -> None:
    in_flight = {EntryState.SUBMITTED, EntryState.QUEUED, EntryState.RUNNING}
    assert set(EntryState) - in_flight == FINAL

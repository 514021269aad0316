"""How scores move an entry on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool.values import parse_transfer_id
from evalpool_benchmark.entry import (
    FIRST_PAUSE,
    IN_FLIGHT,
    LONGEST_PAUSE,
    Entry,
    EntryState,
    RunState,
    Score,
    bind,
    cut_off,
    disqualify,
    enter_again,
    entry_id,
    follow,
    pause_after,
    refuse,
    withdraw,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
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
    made = Score(
        run="run",
        cursor=cursor,
        state=state,
        correct=done // 2,
        done=done,
        total=10,
        points=6 * done,
        full_marks=10,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


SCORES = st.builds(
    score,
    st.integers(1, 30),
    st.sampled_from(RunState),
    st.integers(0, 10),
    reason_code=st.sampled_from(["INVALID_GGUF", "EVALUATION_FAILED", "NEVER_HEARD_OF", ""]),
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
    assert (entry.points, entry.full_marks, entry.score) == (24, 10, Fraction(3, 5))
    entry = follow(entry, score(3, RunState.COMPLETE, 10), NOW)
    assert (entry.state, entry.done, entry.end_time) == (EntryState.SCORED, 10, NOW)
    assert entry.revision == 4


def test_a_queued_entry_moves_up_though_its_own_run_has_not_changed() -> None:
    queued = bind(SUBMITTED, score(1, RunState.QUEUED, queue_position=40), NOW)
    moved = follow(queued, score(1, RunState.QUEUED, queue_position=12), NOW)
    assert (moved.queue_position, moved.revision) == (12, queued.revision + 1)
    assert follow(moved, score(1, RunState.QUEUED, queue_position=12), NOW) is moved
    assert follow(moved, score(0, RunState.QUEUED, queue_position=3), NOW) is moved
    running = follow(moved, score(2, RunState.RUNNING), NOW)
    assert follow(running, score(2, RunState.RUNNING, queue_position=3), NOW) is running


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
    assert (broken.is_final, broken.machinery_failed) == (True, False)
    assert follow(broken, score(3, RunState.RUNNING), NOW) is broken
    lost = follow(running, score(2, RunState.FAILED, reason_code="EVALUATION_FAILED"), NOW)
    assert (lost.is_final, lost.machinery_failed) == (False, True)
    assert lost.end_time is None
    mended = follow(lost, score(3, RunState.COMPLETE, 10), NOW)
    assert (mended.state, mended.retry_time, mended.end_time) == (EntryState.SCORED, None, NOW)


def test_what_the_machinery_has_failed_once_is_remembered_while_it_is_tried_again() -> None:
    running = bind(SUBMITTED, score(1, RunState.RUNNING, 3), NOW)
    lost = follow(running, score(2, RunState.FAILED, reason_code="WORKER_LOST"), NOW)
    again = follow(lost, score(3, RunState.RUNNING, 4), NOW)
    assert (again.machinery_failed, again.retry_time) == (True, None)
    strange = follow(again, score(4, RunState.FAILED, reason_code="NEVER_HEARD_OF"), NOW)
    assert (strange.machinery_failed, strange.failures) == (True, 2)
    assert not enter_again(strange, "a model", 8, NOW).machinery_failed


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING])
@pytest.mark.parametrize(
    ("code", "outage"),
    [("NO_WORKER", True), ("QUEUE_FULL", False), ("DOCUMENT_SET_NOT_READY", False)],
)
def test_a_run_that_waits_says_what_for_and_an_outage_is_the_machinerys_failure(
    state: RunState, code: str, outage: bool
) -> None:
    entry = bind(SUBMITTED, score(1, RunState.QUEUED), NOW)
    waiting = follow(entry, score(2, state, reason="why", reason_code=code), NOW)
    assert (waiting.reason, waiting.reason_code) == ("why", code)
    assert (waiting.state in IN_FLIGHT, waiting.retry_time) == (True, None)
    assert waiting.machinery_failed == outage
    taken_up = follow(waiting, score(3, RunState.RUNNING, 1), NOW)
    assert (taken_up.reason, taken_up.reason_code) == ("", "")
    assert taken_up.machinery_failed == outage, "the time that was lost is not forgotten"


def test_a_failure_of_unknown_fault_is_tried_again_and_not_held_against_the_machinery() -> None:
    for code in ("NEVER_HEARD_OF", ""):
        entry = refuse(SUBMITTED, "why", code, NOW)
        assert entry.state is EntryState.FAILED
        assert (entry.is_final, entry.machinery_failed) == (False, False)
        assert entry.retry_time == NOW + FIRST_PAUSE


def test_a_refused_entry_is_due_again_after_its_pause_and_follows_the_run_it_then_gets() -> None:
    refused = refuse(SUBMITTED, "no worker", "NO_WORKER", NOW)
    assert refused.retry_time == NOW + FIRST_PAUSE
    assert not refused.is_due(NOW + FIRST_PAUSE - MOMENT)
    due = NOW + FIRST_PAUSE
    assert refused.is_due(due)
    assert refused.benchmark_request == "entry:retry:1"
    bound = bind(refused, score(1, RunState.QUEUED), due)
    assert (bound.state, bound.run, bound.retry_time) == (EntryState.QUEUED, "run", None)
    assert (bound.reason, bound.reason_code) == ("", "")


def test_a_refusal_of_what_is_not_due_any_more_changes_nothing() -> None:
    withdrawn = withdraw(SUBMITTED, NOW)
    refused = refuse(SUBMITTED, "no worker", "NO_WORKER", NOW)
    bound = bind(SUBMITTED, score(1, RunState.QUEUED), NOW)
    for entry in (withdrawn, refused, bound):
        assert refuse(entry, "no GGUF", "INVALID_GGUF", NOW) is entry


def test_each_failure_doubles_the_pause_up_to_an_hour() -> None:
    entry, now = SUBMITTED, NOW
    pauses = []
    for _ in range(9):
        entry = refuse(entry, "no worker", "NO_WORKER", now)
        assert entry.retry_time is not None
        pauses.append(entry.retry_time - now)
        now = entry.retry_time
    minutes = [pause / timedelta(minutes=1) for pause in pauses]
    assert minutes == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pause_after(10**9) == LONGEST_PAUSE


def test_a_try_that_changes_nothing_makes_the_next_one_later() -> None:
    running = bind(SUBMITTED, score(1, RunState.RUNNING, 3), NOW)
    failed = follow(running, score(2, RunState.FAILED, reason_code="EVALUATION_FAILED"), NOW)
    due = NOW + FIRST_PAUSE
    again = bind(failed, score(2, RunState.FAILED, reason_code="EVALUATION_FAILED"), due)
    assert (again.failures, again.retry_time) == (2, due + 2 * FIRST_PAUSE)
    assert again.revision == failed.revision + 1


def test_more_news_of_the_same_failure_does_not_put_off_the_next_try() -> None:
    waiting = bind(SUBMITTED, score(1, RunState.UNFUNDED, reason_code="HOLD_REFUSED"), NOW)
    later = follow(
        waiting, score(2, RunState.UNFUNDED, 1, reason_code="HOLD_REFUSED"), NOW + MOMENT
    )
    assert (later.failures, later.retry_time) == (1, NOW + FIRST_PAUSE)


def test_an_answer_that_comes_after_newer_news_of_the_run_changes_nothing() -> None:
    running = bind(SUBMITTED, score(1, RunState.RUNNING, 3), NOW)
    failed = follow(running, score(2, RunState.FAILED, reason_code="EVALUATION_FAILED"), NOW)
    due = NOW + FIRST_PAUSE
    # Tried again, and failed again before the answer to the try has arrived.
    again = follow(failed, score(4, RunState.FAILED, reason_code="EVALUATION_FAILED"), due)
    assert bind(again, score(3, RunState.QUEUED), due) is again


def test_an_unfunded_run_waits_with_its_reason() -> None:
    entry = bind(SUBMITTED, score(1, RunState.UNFUNDED, reason="the hold was refused"), NOW)
    assert entry.state is EntryState.QUEUED
    assert entry.reason == "the hold was refused"
    assert entry.retry_time == NOW + FIRST_PAUSE
    entry = follow(entry, score(2, RunState.RUNNING, 1), NOW)
    assert (entry.reason, entry.retry_time) == ("", None)


def test_entering_again_begins_a_new_attempt_that_old_scores_do_not_touch() -> None:
    first = bind(SUBMITTED, score(5, RunState.FAILED, reason_code="INVALID_GGUF"), NOW)
    again = enter_again(first, "a model", 8, NOW)
    assert again.state is EntryState.SUBMITTED
    assert (again.attempt, again.join_order, again.end_time, again.reason) == (2, 8, None, "")
    assert (again.points, again.full_marks, again.score) == (0, 0, Fraction(0))
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
    assert (ended.is_final, ended.machinery_failed) == (True, False)
    assert follow(ended, score(2, RunState.COMPLETE, 10), NOW) is ended


@pytest.mark.parametrize(
    ("code", "final", "machinery"),
    [
        ("DIGEST_MISMATCH", True, False),
        ("NO_WORKER", False, True),
        ("NEVER_HEARD_OF", False, False),
    ],
)
def test_the_reason_says_whose_failure_it_is(code: str, final: bool, machinery: bool) -> None:
    entry = refuse(SUBMITTED, "why", code, NOW)
    assert (entry.is_final, entry.machinery_failed) == (final, machinery)


def test_there_is_one_entry_id_for_each_pool_and_subject() -> None:
    ids = {entry_id(pool, subject) for pool in ("a", "b") for subject in ("c", "d", "")}
    assert len(ids) == 6
    assert all(parse_transfer_id(each) for each in ids)

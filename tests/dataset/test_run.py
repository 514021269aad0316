"""Runs: their ids, and how they end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_dataset.digest import JsonValue
from evalpool_dataset.run import ENDED, Run, RunState, reopened, run_id, verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = Run("r", 1, 1, 1, "loglikelihood", {}, RunState.RUNNING, total=4, cursor=1, create_time=NOW)
LETTER: dict[str, JsonValue] = {"evaluator": "letter", "max_tokens": 4}


def test_the_same_work_has_the_same_id_and_other_work_another() -> None:
    version, subject = "1" * 64, "2" * 64
    ids = {
        run_id(version, subject, LETTER),
        run_id("3" * 64, subject, LETTER),
        run_id(version, "3" * 64, LETTER),
        run_id(version, subject, {"evaluator": "loglikelihood"}),
        run_id(version, subject, LETTER | {"max_tokens": 8}),
    }
    assert len(ids) == 5
    assert run_id(version, subject, {"max_tokens": 4, "evaluator": "letter"}) in ids
    assert {len(one) for one in ids} == {43}


def test_where_one_part_ends_and_the_next_begins_makes_a_difference() -> None:
    assert run_id("ab", "c", LETTER) != run_id("a", "bc", LETTER)


@given(done=st.integers(0, 4), failed=st.integers(0, 4))
def test_a_run_ends_exactly_when_every_question_has_ended(done: int, failed: int) -> None:
    if done + failed > 4:
        return
    end = verdict(replace(RUN, done=done, failed=failed), "why")
    assert (end is None) == (done + failed < 4)
    if end is not None:
        assert end.state is (RunState.FAILED if failed else RunState.COMPLETE)


def test_a_failed_question_fails_the_run_with_the_first_reason() -> None:
    end = verdict(replace(RUN, done=3, failed=1), "the worker was lost")
    assert end is not None
    assert end.reason_code == "EVALUATION_FAILED"
    assert end.reason.startswith("1 of 4 questions could not be evaluated")
    assert "the worker was lost" in end.reason


@pytest.mark.parametrize(
    ("alike", "compared", "state"),
    [(4, 4, RunState.FAILED), (3, 4, RunState.COMPLETE), (0, 0, RunState.COMPLETE)],
)
def test_scores_that_are_all_alike_are_refused(alike: int, compared: int, state: RunState) -> None:
    end = verdict(replace(RUN, done=4, metric_counts={"alike": alike, "compared": compared}), "")
    assert end is not None
    assert end.state is state
    assert end.reason_code == ("DEGENERATE_SCORES" if state is RunState.FAILED else "")


@pytest.mark.parametrize("state", sorted(ENDED))
def test_a_run_that_has_ended_keeps_its_reason(state: RunState) -> None:
    assert verdict(replace(RUN, state=state, done=0, failed=4), "another") is None


def test_a_retried_run_keeps_what_is_done() -> None:
    ended = replace(
        RUN,
        done=3,
        correct=2,
        failed=1,
        state=RunState.FAILED,
        reason="no",
        reason_code="EVALUATION_FAILED",
        metric_counts={"acc": 2},
        provenance={"engine": "e"},
        start_time=NOW,
        end_time=NOW,
    )

    again = reopened(ended)

    assert (again.state, again.reason, again.reason_code) == (RunState.RUNNING, "", "")
    assert (again.correct, again.done, again.failed) == (2, 3, 0)
    assert (again.metric_counts, again.provenance) == ({"acc": 2}, {"engine": "e"})
    assert (again.start_time, again.end_time) == (NOW, None)


def test_a_retried_run_with_nothing_done_is_queued_again() -> None:
    ended = replace(RUN, failed=4, state=RunState.FAILED, reason_code="EVALUATION_FAILED")
    assert reopened(ended).state is RunState.QUEUED
    assert reopened(replace(RUN, state=RunState.UNFUNDED)).state is RunState.QUEUED


def test_a_retried_run_whose_scores_said_nothing_begins_anew() -> None:
    ended = replace(
        RUN,
        done=4,
        correct=2,
        state=RunState.FAILED,
        reason_code="DEGENERATE_SCORES",
        metric_counts={"acc": 2, "alike": 4},
        provenance={"engine": "e"},
        start_time=NOW,
    )

    again = reopened(ended)

    assert (again.state, again.correct, again.done) == (RunState.QUEUED, 0, 0)
    assert (again.metric_counts, again.provenance, again.start_time) == ({}, None, None)

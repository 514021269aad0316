from __future__ import annotations

import pytest

from evalpool_router.scheduler import Kind, Rules
from evalpool_runtime.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    Unavailable,
    reasons,
)
from tests.router.scheduler.herd_model import HerdModel

FETCH_FAILED = FailedPrecondition(reasons.ERROR_REASON_MODEL_FETCH_FAILED, "no such file")
LOAD_FAILED = FailedPrecondition(reasons.ERROR_REASON_MODEL_LOAD_FAILED, "unknown architecture")
ENGINE_FAILED = Internal(reasons.ERROR_REASON_ENGINE_FAILED, "no room in the cache")


def test_unfinished_questions_of_a_lost_worker_go_to_the_front_and_finished_ones_stand() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    run = herd.score(200)
    later = herd.score(50, caller="another")
    lost = herd.at("a")[0]
    herd.answer(lost, lost.questions[:10])
    herd.lose(lost)
    herd.join("b", slots=1)

    again = herd.at("b")[0]
    assert again.request == run
    assert again.questions == tuple(range(10, 10 + len(again.questions)))
    assert len(again.questions) > 40
    herd.wait(1)
    herd.run_to_the_end()
    assert sorted(herd.done[run]) == list(range(200))
    assert sorted(herd.done[later]) == list(range(50))
    assert herd.ended == {run: None, later: None}


def test_results_that_come_after_a_dispatch_was_lost_do_not_count() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    run = herd.score(20)
    old = herd.at("a")[0]
    herd.lose(old)
    assert herd.answer(old) == ()
    herd.join("b", slots=1)
    herd.run_to_the_end()
    assert sorted(herd.done[run]) == list(range(20))


def test_questions_that_a_worker_leaves_out_are_sent_again() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    run = herd.score(20)
    dispatch = herd.at("a")[0]
    herd.answer(dispatch, range(5))
    herd.finish(dispatch)
    herd.wait(1)
    assert herd.at("a")[0].questions == tuple(range(5, 20))
    herd.run_to_the_end()
    assert herd.ended == {run: None}


def test_a_prompt_that_has_sent_nothing_goes_to_another_worker() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    request = herd.infer()
    dispatch = herd.at("a")[0]
    herd.scheduler.accepted(dispatch.id, herd.now)
    herd.lose(dispatch)
    herd.join("b", slots=1)
    assert [d.request for d in herd.at("b")] == [request]


def test_an_answer_that_has_begun_is_ended_when_its_worker_is_lost() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    request = herd.infer()
    dispatch = herd.at("a")[0]
    herd.scheduler.accepted(dispatch.id, herd.now)
    herd.scheduler.sent(dispatch.id)
    herd.lose(dispatch)
    error = herd.ended[request]
    assert isinstance(error, Unavailable)
    assert error.reason == reasons.ERROR_REASON_WORKER_LOST
    assert not herd.running


def test_a_question_over_which_workers_are_lost_again_and_again_is_given_up() -> None:
    herd = HerdModel(Rules(losses=2))
    herd.join("a", slots=1)
    run = herd.score(10)
    for _ in range(2):
        dispatch = herd.at("a")[0]
        herd.answer(dispatch, [q for q in dispatch.questions if q != 7])
        herd.lose(dispatch)
        herd.join("a", slots=1)
        herd.wait(5)
    assert herd.given_up[run] == [7]
    assert sorted(herd.done[run]) == [q for q in range(10) if q != 7]
    assert herd.ended == {run: None}


def test_a_worker_that_cannot_be_reached_is_no_attempt() -> None:
    herd = HerdModel(Rules(losses=1, lease_seconds=1000, failure_rest_seconds=1))
    herd.join("a", slots=1)
    request = herd.infer()
    for rest in (1, 2, 4, 8):
        herd.lose(herd.at("a")[0])
        herd.wait(rest / 2)
        assert not herd.running
        herd.wait(rest / 2)
    herd.run_to_the_end()
    assert herd.ended == {request: None}


def test_an_error_that_is_the_requests_own_ends_it_and_recalls_its_other_packages() -> None:
    herd = HerdModel()
    herd.join("a")
    run = herd.score(1000)
    first, second = herd.at("a")
    error = FailedPrecondition(reasons.ERROR_REASON_DIGEST_MISMATCH, "another file")
    herd.running.pop(first.id)
    herd.carry_out(herd.scheduler.failed(first.id, error, herd.now, blamed=False))
    assert herd.ended == {run: error}
    assert second.id not in herd.running
    assert herd.scheduler.totals().queued == 0
    assert herd.scheduler.totals().running == 0
    assert herd.scheduler.totals().failed == 1000


def test_work_that_a_worker_has_failed_goes_to_another_at_once() -> None:
    herd = HerdModel()
    herd.join("a")
    herd.join("b")
    request = herd.infer()
    herd.fail(herd.at("a")[0], FETCH_FAILED)
    assert [d.request for d in herd.at("b")] == [request]
    herd.run_to_the_end()
    assert herd.ended == {request: None}


def test_failed_work_waits_for_a_busy_worker_rather_than_return_to_the_one_that_failed_it() -> None:
    herd = HerdModel(Rules(lease_seconds=1000))
    herd.join("a", slots=1)
    herd.join("b", slots=1)
    failed, running = herd.infer(), herd.infer()
    herd.fail(herd.at("a")[0], FETCH_FAILED)
    herd.wait(100)
    later = herd.infer()
    assert [d.request for d in herd.at("a")] == [later]
    assert [d.request for d in herd.at("b")] == [running]
    herd.complete(herd.at("b")[0])
    assert [d.request for d in herd.at("b")] == [failed]


def test_failed_work_goes_before_what_nobody_has_had() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    herd.join("b", slots=1)
    failed, _, waiting = herd.infer(), herd.infer(), herd.infer()
    herd.fail(herd.at("a")[0], FETCH_FAILED)
    herd.complete(herd.at("b")[0])
    assert [d.request for d in herd.at("b")] == [failed]
    herd.run_to_the_end()
    herd.wait(1)
    herd.run_to_the_end()
    assert herd.ended[waiting] is None


def test_a_request_that_every_able_worker_has_failed_ends_with_the_newest_error() -> None:
    herd = HerdModel()
    for address in ("a", "b"):
        herd.join(address)
    herd.join("judge", kinds=frozenset({Kind.JUDGE}))
    herd.join("leaving")
    herd.heartbeat("leaving", leaving=True)
    request = herd.infer()
    herd.fail(herd.at("a")[0], ENGINE_FAILED)
    assert not herd.ended
    herd.fail(herd.at("b")[0], FETCH_FAILED)
    assert herd.ended == {request: FETCH_FAILED}
    totals = herd.scheduler.totals()
    assert (totals.queued, totals.running, totals.failed) == (0, 0, 1)


@pytest.mark.parametrize("other", [FETCH_FAILED, ENGINE_FAILED])
def test_that_a_model_cannot_be_loaded_is_told_only_where_all_who_tried_say_so(
    other: FailedPrecondition | Internal,
) -> None:
    herd = HerdModel()
    for address in ("a", "b"):
        herd.join(address)
    request = herd.infer()
    herd.fail(herd.at("a")[0], LOAD_FAILED)
    herd.fail(herd.at("b")[0], LOAD_FAILED)
    assert herd.ended[request] is LOAD_FAILED

    herd = HerdModel()
    for address in ("a", "b"):
        herd.join(address)
    request = herd.infer()
    herd.fail(herd.at("a")[0], other)
    herd.fail(herd.at("b")[0], LOAD_FAILED)
    assert herd.ended[request] is other


def test_of_questions_the_finished_ones_stand_and_only_the_rest_goes_on_elsewhere() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    run = herd.score(100)
    failed = herd.at("a")[0]
    herd.answer(failed, failed.questions[:10])
    herd.join("b", slots=1)
    herd.fail(failed, FETCH_FAILED)
    assert not set(failed.questions[:10]) & {q for d in herd.at("b") for q in d.questions}
    while herd.running:
        herd.complete(herd.at("b")[0])
    assert sorted(herd.done[run]) == list(range(100))
    assert {d.worker for d in herd.dispatched[1:]} == {"b"}
    assert herd.ended == {run: None}


def test_a_request_is_given_up_after_so_many_tries_though_others_have_not_failed_it() -> None:
    herd = HerdModel(Rules(tries=2))
    for address in ("a", "b", "c"):
        herd.join(address)
    request = herd.infer()
    herd.fail(herd.at("a")[0], LOAD_FAILED)
    herd.fail(herd.at("b")[0], LOAD_FAILED)
    assert herd.ended == {request: LOAD_FAILED}


def test_a_request_of_which_something_is_answered_is_not_given_up_for_its_tries() -> None:
    herd = HerdModel(Rules(tries=2, largest_package=2, smallest_package=1))
    for address in ("a", "b", "c"):
        herd.join(address, slots=1)
    run = herd.score(20)
    herd.answer(herd.at("c")[0], herd.at("c")[0].questions[:1])
    for address in ("a", "b"):
        herd.fail(herd.at(address)[0], LOAD_FAILED)
    herd.wait(1)
    herd.join("d", slots=1)
    assert {d.worker for d in herd.running.values()} == {"c", "d"}
    herd.run_to_the_end()
    assert herd.ended == {run: None}


def test_when_its_tries_are_used_up_a_request_waits_for_those_who_are_at_it() -> None:
    rules = Rules(tries=2, largest_package=2, smallest_package=1)
    for good in (True, False):
        herd = HerdModel(rules)
        for address in ("a", "b", "c"):
            herd.join(address, slots=1)
        run = herd.score(20)
        for address in ("a", "b"):
            herd.fail(herd.at(address)[0], LOAD_FAILED)
        herd.join("d", slots=1)
        assert {d.worker for d in herd.running.values()} == {"c"}
        if good:
            herd.complete(herd.at("c")[0])
            assert {d.worker for d in herd.running.values()} == {"c", "d"}
            herd.run_to_the_end()
            assert herd.ended == {run: None}
        else:
            herd.fail(herd.at("c")[0], LOAD_FAILED)
            assert herd.ended == {run: LOAD_FAILED}


def test_a_request_ends_when_the_last_worker_that_has_not_failed_it_goes() -> None:
    for goes in ("drains", "leaves", "lapses"):
        herd = HerdModel()
        herd.join("a", slots=1)
        herd.join("b", slots=1)
        failed, _ = herd.infer(), herd.infer()
        herd.fail(herd.at("a")[0], FETCH_FAILED)
        assert failed not in herd.ended
        if goes == "drains":
            herd.carry_out(herd.scheduler.drain("b", True, herd.now))
        elif goes == "leaves":
            herd.carry_out(herd.scheduler.worker_left("b", 1, herd.now))
        else:
            herd.wait(10)
            herd.heartbeat("a")
            herd.wait(10)
        assert herd.ended == {failed: FETCH_FAILED}


def test_with_no_able_worker_left_at_all_failed_work_waits_for_a_new_one() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    herd.join("b", slots=1)
    failed, _ = herd.infer(), herd.infer()
    herd.carry_out(herd.scheduler.drain("a", True, herd.now))
    herd.fail(herd.at("a")[0], FETCH_FAILED)
    herd.carry_out(herd.scheduler.drain("b", True, herd.now))
    assert not herd.ended
    herd.join("c", slots=1)
    assert [d.request for d in herd.at("c")] == [failed]


def test_a_worker_that_has_started_anew_may_try_again_what_it_failed() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    herd.join("b", slots=1)
    failed, _ = herd.infer(), herd.infer()
    herd.fail(herd.at("a")[0], FETCH_FAILED)
    herd.join("a", slots=1)
    herd.wait(1)
    assert [d.request for d in herd.at("a")] == [failed]


def test_an_answer_that_has_begun_is_ended_by_its_workers_trouble() -> None:
    herd = HerdModel()
    herd.join("a")
    herd.join("b")
    request = herd.infer()
    herd.send_a_part(herd.at("a")[0])
    herd.fail(herd.at("a")[0], ENGINE_FAILED)
    assert herd.ended == {request: ENGINE_FAILED}
    assert not herd.running


def test_a_failure_after_the_last_answer_is_none() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    run = herd.score(40)
    first = herd.at("a")[0]
    herd.answer(first)
    herd.fail(first, ENGINE_FAILED)
    herd.wait(1)
    herd.run_to_the_end()
    assert herd.ended == {run: None}


def test_a_question_that_a_workers_engine_fails_goes_to_another_and_the_others_stay() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    run = herd.score(10)
    first = herd.at("a")[0]
    herd.join("b", slots=1)
    herd.fail_questions(first, [3, 7], ENGINE_FAILED)
    assert [(d.questions, d.worker) for d in herd.dispatched[1:]] == [((3, 7), "b")]
    view = herd.scheduler.worker("a", herd.now)
    assert view is not None
    assert view.outstanding_tokens == 8 * 40
    herd.run_to_the_end()
    assert sorted(herd.done[run]) == list(range(10))
    assert herd.ended == {run: None}


def test_a_question_that_nobody_else_can_try_is_given_up_and_the_others_go_on() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    run = herd.score(10)
    first = herd.at("a")[0]
    herd.fail_questions(first, [3], ENGINE_FAILED)
    assert herd.given_up[run] == [3]
    herd.complete(first)
    assert sorted(herd.done[run]) == [q for q in range(10) if q != 3]
    assert herd.ended == {run: None}


def test_a_question_is_given_up_after_so_many_tries() -> None:
    herd = HerdModel(Rules(tries=2))
    for address in ("a", "b", "c"):
        herd.join(address, slots=1)
    run = herd.score(1)
    herd.fail_questions(herd.at("a")[0], [0], ENGINE_FAILED)
    assert not herd.given_up[run]
    herd.fail_questions(herd.at("b")[0], [0], ENGINE_FAILED)
    assert herd.given_up[run] == [0]
    assert herd.ended == {run: None}


def test_a_request_whose_deadline_passes_says_what_went_wrong_where_it_was_tried() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    herd.join("b", slots=1)
    failed, _ = herd.infer(deadline=110.0), herd.infer()
    herd.fail(herd.at("a")[0], FETCH_FAILED)
    herd.wait(10)
    error = herd.ended[failed]
    assert isinstance(error, DeadlineExceeded)
    assert "no such file" in error.message

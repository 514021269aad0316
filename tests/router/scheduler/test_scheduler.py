from __future__ import annotations

from fractions import Fraction

import pytest

from evalpool_router.scheduler import Kind, Rules
from evalpool_runtime.errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    Unavailable,
    reasons,
)
from tests.router.scheduler.herd_model import ALL_KINDS, MODEL, OTHER_MODEL, HerdModel


def test_work_waits_until_a_worker_that_takes_it_joins() -> None:
    herd = HerdModel()
    herd.join("judge", kinds=frozenset({Kind.JUDGE}))
    request = herd.infer()
    assert not herd.running

    new = herd.join("chat", kinds=frozenset({Kind.CHAT}))

    assert [(d.request, d.worker) for d in new] == [(request, "chat")]


def test_a_request_goes_to_the_worker_with_the_fewest_outstanding_tokens() -> None:
    herd = HerdModel()
    herd.join("a", slots=3)
    herd.join("b", slots=3)
    herd.infer(tokens=500)
    herd.infer(tokens=100)
    herd.infer(tokens=100)
    assert [d.worker for d in herd.dispatched] == ["a", "b", "b"]


def test_among_equally_loaded_workers_the_one_with_the_model_is_chosen() -> None:
    herd = HerdModel()
    herd.join("a", models=[OTHER_MODEL])
    herd.join("b")
    herd.infer(model="c" * 64)
    herd.infer(model=OTHER_MODEL)
    assert [d.worker for d in herd.dispatched] == ["a", "b"]

    herd = HerdModel()
    herd.join("a")
    herd.join("b", models=[OTHER_MODEL])
    herd.infer(model=OTHER_MODEL)
    assert [d.worker for d in herd.dispatched] == ["b"]


def test_the_worker_that_has_been_idle_longest_is_chosen_among_equals() -> None:
    herd = HerdModel()
    for address in ("a", "b", "c"):
        herd.join(address, models=[MODEL])
    for _ in range(3):
        herd.infer()
        herd.complete(herd.dispatched[-1])
    assert [d.worker for d in herd.dispatched] == ["a", "b", "c"]
    herd.infer()
    assert herd.dispatched[-1].worker == "a"


def test_a_model_that_a_worker_has_taken_up_counts_as_loaded() -> None:
    herd = HerdModel()
    herd.join("a")
    herd.join("b")
    herd.infer(model=OTHER_MODEL)
    herd.complete(herd.dispatched[0])
    assert herd.dispatched[0].worker == "a"
    herd.infer(model=OTHER_MODEL)
    assert herd.dispatched[1].worker == "a"


def test_a_worker_never_gets_more_than_its_slots() -> None:
    herd = HerdModel()
    herd.join("a", slots=2)
    for _ in range(5):
        herd.infer()
    assert len(herd.running) == 2
    herd.complete(herd.at("a")[0])
    assert len(herd.running) == 2


def test_callers_take_turns() -> None:
    herd = HerdModel()
    for _ in range(4):
        herd.infer(caller="many")
    herd.infer(caller="few")
    herd.infer(caller="other")
    herd.join("a", slots=1)
    herd.run_to_the_end()
    callers = [herd.requests[d.request].caller for d in herd.dispatched]
    assert callers == ["many", "few", "other", "many", "many", "many"]


def test_a_chat_is_served_between_the_packages_of_a_long_run() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    herd.score(1000)
    herd.wait(1.0)
    chat = herd.infer(caller="someone")
    herd.complete(herd.at("a")[0])
    herd.complete(herd.at("a")[0])
    assert chat in {d.request for d in herd.dispatched[:3]}


def test_a_higher_multiplier_goes_first() -> None:
    herd = HerdModel()
    first = herd.infer(caller="plain")
    second = herd.infer(caller="paying", multiplier=Fraction(2))
    third = herd.infer(caller="paying", multiplier=Fraction(4))
    herd.join("a", slots=1)
    herd.run_to_the_end()
    assert [d.request for d in herd.dispatched] == [third, second, first]


def test_waiting_long_enough_outweighs_any_multiplier() -> None:
    herd = HerdModel(Rules(ageing_seconds=10))
    patient = herd.infer(caller="plain")
    herd.wait(101)
    rich = herd.infer(caller="rich", multiplier=Fraction(10**9))
    herd.join("a", slots=1)
    herd.run_to_the_end()
    assert [d.request for d in herd.dispatched] == [patient, rich]


def test_questions_are_split_late_into_packages() -> None:
    herd = HerdModel()
    herd.join("a", slots=4)
    herd.score(1000)
    assert [len(d.questions) for d in herd.dispatched] == [64, 64]
    assert herd.dispatched[0].questions == tuple(range(64))


def test_two_packages_are_at_a_worker_at_once_whatever_its_slots() -> None:
    herd = HerdModel()
    herd.join("a", slots=8)
    herd.score(1000)
    assert len(herd.at("a")) == 2
    herd.infer()
    assert len(herd.at("a")) == 3


def test_a_run_is_shared_by_all_workers_in_packages_that_get_smaller() -> None:
    herd = HerdModel()
    for number in range(4):
        herd.join(f"w{number}")
    request = herd.score(300)
    herd.run_to_the_end()
    sizes = [len(d.questions) for d in herd.dispatched]
    assert {d.worker for d in herd.dispatched} == {"w0", "w1", "w2", "w3"}
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 38
    assert sizes[-2] == 16
    assert sorted(herd.done[request]) == list(range(300))
    assert herd.ended == {request: None}


def test_long_prompts_go_out_in_smaller_packages() -> None:
    herd = HerdModel(Rules(package_tokens=1000))
    herd.join("a")
    herd.score(100, tokens=300)
    assert len(herd.dispatched[0].questions) == 3

    herd = HerdModel(Rules(package_tokens=1000))
    herd.join("a")
    herd.score(3, tokens=5000)
    assert len(herd.dispatched[0].questions) == 1


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


def test_a_result_counts_once() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    run = herd.score(20)
    dispatch = herd.at("a")[0]
    assert herd.answer(dispatch, [3, 3, 4]) == (3, 4)
    assert herd.answer(dispatch, [3]) == ()
    assert herd.answer(dispatch, [99]) == ()
    assert herd.done[run] == [3, 4]


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


def test_a_refusal_as_busy_is_no_attempt_and_gives_the_worker_a_rest() -> None:
    herd = HerdModel(Rules(losses=1, busy_rest_seconds=0.1))
    herd.join("a", slots=1)
    request = herd.infer()
    for rest in (0.1, 0.2, 0.4):
        herd.refuse(herd.at("a")[0])
        assert not herd.running
        herd.wait(rest / 2)
        assert not herd.running
        herd.wait(rest / 2 + 0.001)
        assert [d.request for d in herd.at("a")] == [request]
    herd.run_to_the_end()
    assert herd.ended == {request: None}


def test_a_refused_request_goes_to_another_worker_at_once() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    herd.join("b", slots=1)
    request = herd.infer()
    herd.refuse(herd.at("a")[0])
    assert [d.request for d in herd.at("b")] == [request]


def test_a_worker_that_fails_by_itself_does_not_draw_all_work_to_it() -> None:
    herd = HerdModel()
    herd.join("broken", slots=1)
    herd.join("good", slots=1)
    error = FailedPrecondition(reasons.ERROR_REASON_MODEL_LOAD_FAILED, "the disk is full")
    herd.infer()
    dispatch = herd.at("broken")[0]
    herd.running.pop(dispatch.id)
    herd.carry_out(herd.scheduler.failed(dispatch.id, error, herd.now, blamed=True))
    for _ in range(3):
        herd.infer()
        assert herd.dispatched[-1].worker == "good"
        herd.complete(herd.dispatched[-1])
    assert herd.ended[1] is error


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


def test_cancelling_frees_the_slot_and_forgets_what_waits() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    run = herd.score(500)
    other = herd.infer()
    dispatch = herd.at("a")[0]
    herd.carry_out(herd.scheduler.cancel(run, herd.now))
    assert dispatch.id not in herd.running
    assert [d.request for d in herd.at("a")] == [other]
    assert herd.scheduler.totals().queued == 0
    assert herd.answer(dispatch) == ()


def test_a_deadline_ends_waiting_and_running_requests() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    running = herd.infer(deadline=110.0)
    waiting = herd.infer(deadline=120.0)
    herd.wait(10.0)
    assert isinstance(herd.ended[running], DeadlineExceeded)
    assert [d.request for d in herd.at("a")] == [waiting]
    herd.wait(10.0)
    assert isinstance(herd.ended[waiting], DeadlineExceeded)
    assert not herd.running
    view = herd.scheduler.worker("a", herd.now)
    assert view is None or view.busy_slots == 0


def test_a_deadline_without_any_worker_says_which_kind_is_missing() -> None:
    herd = HerdModel()
    request = herd.infer(kind=Kind.JUDGE, deadline=101.0)
    herd.wait(1.0)
    assert "judge" in str(herd.ended[request])


def test_a_full_queue_refuses_with_a_delay_and_changes_nothing() -> None:
    herd = HerdModel(Rules(queue_units=10, caller_share=1.0))
    herd.score(8)
    with pytest.raises(ResourceExhausted) as refusal:
        herd.score(3)
    assert refusal.value.reason == reasons.ERROR_REASON_QUEUE_FULL
    assert refusal.value.retry_after is not None
    assert 1 <= refusal.value.retry_after <= 60
    assert herd.scheduler.totals().queued == 8
    herd.score(2)


def test_the_queue_is_bounded_in_bytes_too() -> None:
    herd = HerdModel(Rules(queue_bytes=1000))
    first = herd.infer(tokens=900)
    with pytest.raises(ResourceExhausted):
        herd.infer(tokens=200)
    herd.carry_out(herd.scheduler.cancel(first, herd.now))
    herd.infer(tokens=200)


def test_one_caller_cannot_fill_the_whole_queue() -> None:
    herd = HerdModel(Rules(queue_units=10, caller_share=0.5))
    herd.score(5, caller="greedy")
    with pytest.raises(ResourceExhausted):
        herd.infer(caller="greedy")
    herd.infer(caller="modest")


def test_a_draining_worker_finishes_and_gets_nothing_new() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    first, second = herd.infer(), herd.infer()
    herd.carry_out(herd.scheduler.drain("a", True, herd.now))
    herd.complete(herd.at("a")[0])
    assert herd.ended == {first: None}
    assert not herd.running
    herd.carry_out(herd.scheduler.drain("a", False, herd.now))
    assert [d.request for d in herd.at("a")] == [second]


def test_a_worker_that_says_it_is_leaving_gets_nothing_new() -> None:
    herd = HerdModel()
    herd.join("a")
    herd.heartbeat("a", leaving=True)
    herd.infer()
    assert not herd.running


def test_a_lease_that_lapses_returns_the_workers_work() -> None:
    herd = HerdModel(Rules(lease_seconds=15))
    herd.join("a", slots=1)
    request = herd.infer()
    herd.wait(14)
    herd.heartbeat("a")
    herd.wait(14)
    assert herd.at("a")
    herd.wait(1)
    assert not herd.running
    with pytest.raises(Aborted) as refusal:
        herd.heartbeat("a")
    assert refusal.value.reason == reasons.ERROR_REASON_LEASE_LOST
    herd.join("b", slots=1)
    assert [d.request for d in herd.at("b")] == [request]


def test_a_hung_worker_is_lost_although_its_heart_beats() -> None:
    herd = HerdModel(Rules(lease_seconds=1000, hung_seconds=60))
    herd.join("a", slots=1)
    request = herd.infer()
    herd.heartbeat("a", computed_tokens=5)
    herd.wait(59)
    herd.heartbeat("a", computed_tokens=6)
    herd.wait(59)
    herd.heartbeat("a", computed_tokens=6)
    assert herd.at("a")
    herd.wait(1)
    assert not herd.at("a")
    assert herd.scheduler.worker("a", herd.now) is None
    herd.join("b", slots=1)
    assert [d.request for d in herd.at("b")] == [request]


def test_an_idle_worker_is_never_hung() -> None:
    herd = HerdModel(Rules(lease_seconds=1000, hung_seconds=60))
    herd.join("a")
    herd.wait(500)
    herd.infer()
    herd.wait(59)
    assert herd.at("a")


def test_a_new_generation_takes_over_and_the_old_ones_work_goes_back() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    run = herd.score(10)
    old = herd.at("a")[0]
    herd.join("a", slots=1)
    assert old.id not in herd.running
    assert herd.answer(old) == ()
    herd.wait(1)
    new = herd.at("a")[0]
    assert (new.generation, new.request) == (2, run)
    with pytest.raises(Aborted):
        herd.scheduler.heartbeat("a", 1, herd.now)


def test_a_worker_that_leaves_gives_its_work_back() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    request = herd.infer()
    herd.carry_out(herd.scheduler.worker_left("a", 1, herd.now))
    assert not herd.running
    herd.join("b")
    assert [d.request for d in herd.at("b")] == [request]


def test_a_worker_whose_admission_shrinks_keeps_only_what_is_left() -> None:
    herd = HerdModel()
    herd.join("a")
    herd.carry_out(herd.scheduler.restrict("a", frozenset({Kind.JUDGE}), herd.now))
    herd.infer(kind=Kind.CHAT)
    assert not herd.running
    herd.infer(kind=Kind.JUDGE)
    assert herd.at("a")
    herd.carry_out(herd.scheduler.restrict("a", frozenset(), herd.now))
    assert herd.scheduler.worker("a", herd.now) is None
    assert not herd.running


def test_the_position_counts_what_goes_before() -> None:
    herd = HerdModel()
    herd.score(100)
    second = herd.score(10)
    assert herd.scheduler.position(second) == 100
    herd.join("a", slots=1)
    assert herd.scheduler.position(second) == 50
    assert herd.scheduler.position(1) == 0


def test_load_and_totals_go_back_to_nothing() -> None:
    herd = HerdModel()
    herd.join("a", kinds=ALL_KINDS)
    herd.score(200)
    for _ in range(3):
        herd.infer()
    herd.run_to_the_end()
    view = herd.scheduler.worker("a", herd.now)
    assert view is not None
    assert (view.busy_slots, view.outstanding_tokens, view.completed) == (0, 0, 203)
    totals = herd.scheduler.totals()
    assert (totals.queued, totals.running, totals.completed, totals.failed) == (0, 0, 203, 0)


def test_loaded_models_are_listed_with_those_of_most_workers_first() -> None:
    herd = HerdModel()
    assert herd.scheduler.loaded_models(Kind.CHAT) == []
    herd.join("a", models=["x", "y"])
    herd.join("b", models=["y"])
    herd.join("c", models=["z"], kinds=frozenset({Kind.JUDGE}))
    assert herd.scheduler.loaded_models(Kind.CHAT) == ["y", "x"]

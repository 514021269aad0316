from __future__ import annotations

import pytest

from evalpool_router.scheduler import Kind, Rules
from evalpool_runtime.errors import Aborted, FailedPrecondition, Internal, reasons
from tests.router.scheduler.herd_model import MODEL, OTHER_MODEL, HerdModel

LOAD_FAILED = FailedPrecondition(reasons.ERROR_REASON_MODEL_LOAD_FAILED, "the disk is full")
ENGINE_FAILED = Internal(reasons.ERROR_REASON_ENGINE_FAILED, "no room in the cache")


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
    herd.join("good", slots=2)
    herd.infer()
    herd.fail(herd.at("broken")[0], LOAD_FAILED)
    assert [d.worker for d in herd.dispatched] == ["broken", "good"]
    for _ in range(3):
        herd.infer()
        assert herd.dispatched[-1].worker == "good"
        herd.complete(herd.dispatched[-1])


def test_failures_with_one_model_do_not_lay_a_worker_off_for_ever_longer() -> None:
    herd = HerdModel(Rules(failure_rest_seconds=1, lease_seconds=1000))
    herd.join("a", slots=1)
    for _ in range(5):
        herd.infer(model=MODEL)
        herd.fail(herd.at("a")[0], LOAD_FAILED)
        herd.wait(1)
    herd.infer(model=OTHER_MODEL)
    herd.fail(herd.at("a")[0], LOAD_FAILED)
    herd.infer()
    herd.wait(1)
    assert not herd.running
    herd.wait(1)
    assert herd.running


def test_a_success_forgives_failures() -> None:
    herd = HerdModel(Rules(failure_rest_seconds=1, lease_seconds=1000))
    herd.join("a", slots=1)
    for model in (MODEL, OTHER_MODEL):
        herd.infer(model=model)
        herd.fail(herd.at("a")[0], LOAD_FAILED)
        herd.wait(2)
    herd.infer()
    herd.complete(herd.at("a")[0])
    herd.infer()
    herd.fail(herd.at("a")[0], LOAD_FAILED)
    herd.infer()
    herd.wait(0.9)
    assert not herd.running
    herd.wait(0.1)
    assert herd.running


def test_a_worker_whose_engine_fails_questions_gets_nothing_new_for_a_while() -> None:
    herd = HerdModel(Rules(failure_rest_seconds=1))
    herd.join("a", slots=2)
    herd.score(10)
    herd.fail_questions(herd.at("a")[0], [3], ENGINE_FAILED)
    herd.infer()
    assert len(herd.at("a")) == 1
    herd.wait(1)
    assert len(herd.at("a")) == 2


def test_a_worker_that_breaks_off_everything_at_once_has_failed_once() -> None:
    herd = HerdModel(Rules(failure_rest_seconds=1))
    herd.join("a", slots=3)
    for _ in range(3):
        herd.infer()
    herd.crash("a")
    herd.wait(0.9)
    assert not herd.running
    herd.wait(0.1)
    assert len(herd.at("a")) == 3


def test_a_new_start_does_not_end_the_rest_of_a_worker_that_failed() -> None:
    herd = HerdModel(Rules(failure_rest_seconds=1, losses=9))
    herd.join("a", slots=1)
    herd.infer()
    for rest in (1, 2, 4):
        herd.crash("a")
        herd.join("a", slots=1)
        herd.wait(rest / 2)
        assert not herd.running
        herd.wait(rest / 2)
        assert herd.running


def test_a_worker_that_took_longer_than_its_rest_to_start_anew_gets_work_at_once() -> None:
    herd = HerdModel(Rules(failure_rest_seconds=1))
    herd.join("a", slots=1)
    request = herd.infer()
    herd.crash("a")
    herd.carry_out(herd.scheduler.worker_left("a", 1, herd.now))
    herd.wait(1)
    assert [d.request for d in herd.join("a", slots=1)] == [request]


def test_a_worker_out_of_reach_gets_work_as_soon_as_it_has_started_anew() -> None:
    herd = HerdModel(Rules(failure_rest_seconds=1, lease_seconds=1000))
    herd.join("a", slots=2)
    requests = [herd.infer(), herd.infer()]
    for rest in (1, 2, 4):
        for dispatch in herd.at("a"):
            herd.lose(dispatch)
        herd.wait(rest / 2)
        assert not herd.running
        herd.wait(rest / 2)
        assert len(herd.at("a")) == 2
    assert [d.request for d in herd.join("a", slots=2)] == requests


def test_a_worker_that_can_be_reached_again_is_next_out_of_reach_for_the_first_time() -> None:
    herd = HerdModel(Rules(failure_rest_seconds=1, lease_seconds=1000))
    herd.join("a", slots=1)
    herd.infer()
    for rest in (1, 2):
        herd.lose(herd.at("a")[0])
        herd.wait(rest)
    herd.complete(herd.at("a")[0])
    herd.infer()
    herd.lose(herd.at("a")[0])
    herd.wait(1)
    assert herd.running


def test_a_worker_that_has_taken_work_up_starts_again_with_short_rests() -> None:
    herd = HerdModel(Rules(busy_rest_seconds=0.1))
    herd.join("a", slots=1)
    herd.infer()
    for rest in (0.1, 0.2):
        herd.refuse(herd.at("a")[0])
        herd.wait(rest)
    herd.scheduler.progressed(herd.at("a")[0].id, herd.now)
    herd.refuse(herd.at("a")[0])
    herd.wait(0.1)
    assert herd.running


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
    herd.carry_out(herd.scheduler.assign("a", frozenset({Kind.JUDGE}), herd.now))
    herd.infer(kind=Kind.CHAT)
    assert not herd.running
    herd.infer(kind=Kind.JUDGE)
    assert herd.at("a")
    herd.carry_out(herd.scheduler.assign("a", frozenset(), herd.now))
    assert herd.scheduler.worker("a", herd.now) is None
    assert not herd.running


def test_a_worker_whose_admission_grows_gets_what_waits_for_it_at_once() -> None:
    herd = HerdModel()
    herd.join("a", kinds=frozenset({Kind.CHAT}))
    request = herd.infer(kind=Kind.JUDGE)
    assert not herd.running
    herd.carry_out(herd.scheduler.assign("a", frozenset({Kind.CHAT, Kind.JUDGE}), herd.now))
    assert [d.request for d in herd.at("a")] == [request]


def test_a_model_that_a_worker_failed_with_does_not_count_as_loaded_there() -> None:
    herd = HerdModel(Rules(failure_rest_seconds=1))
    herd.join("a", slots=1)
    request = herd.infer()
    assert herd.scheduler.loaded_models(Kind.CHAT) == []
    herd.scheduler.accepted(herd.at("a")[0].id, herd.now)
    assert herd.scheduler.loaded_models(Kind.CHAT) == [MODEL]
    herd.fail(herd.at("a")[0], LOAD_FAILED)
    assert herd.ended[request] is LOAD_FAILED
    assert herd.scheduler.loaded_models(Kind.CHAT) == []

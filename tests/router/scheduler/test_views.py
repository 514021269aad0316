from __future__ import annotations

from evalpool_router.scheduler import (
    Departure,
    ModelView,
    Rates,
    Rest,
    Rules,
    Totals,
    WorkerState,
    WorkerView,
)
from evalpool_runtime.errors import FailedPrecondition, reasons
from tests.router.scheduler.herd_model import MODEL, OTHER_MODEL, HerdModel

LOAD_FAILED = FailedPrecondition(reasons.ERROR_REASON_MODEL_LOAD_FAILED, "the disk is full")
PATIENT = Rules(lease_seconds=1e6, failure_rest_seconds=2, busy_rest_seconds=1)


def view_of(herd: HerdModel, address: str) -> WorkerView:
    view = herd.scheduler.worker(address, herd.now)
    assert view is not None
    return view


def model_of(herd: HerdModel, digest: str) -> ModelView:
    (found,) = [view for view in herd.scheduler.models(herd.now) if view.digest == digest]
    return found


# Workers


def test_a_package_takes_one_slot_and_runs_as_many_questions_as_are_not_answered() -> None:
    herd = HerdModel()
    herd.join("a", slots=3)
    herd.score(20)
    herd.infer()
    questions = sum(len(dispatch.questions) for dispatch in herd.at("a"))
    view = view_of(herd, "a")
    assert (view.busy_slots, view.free_slots, view.running) == (
        len(herd.at("a")),
        3 - len(herd.at("a")),
        questions,
    )
    herd.answer(herd.at("a")[0], [0, 1])
    assert view_of(herd, "a").running == questions - 2
    herd.run_to_the_end()
    view = view_of(herd, "a")
    assert (view.busy_slots, view.free_slots, view.running) == (0, 3, 0)


def test_a_worker_that_drains_has_no_slot_free() -> None:
    herd = HerdModel()
    herd.join("a", slots=2)
    herd.drain("a", True)
    assert view_of(herd, "a").state is WorkerState.DRAINING
    assert view_of(herd, "a").free_slots == 0
    herd.drain("a", False)
    assert view_of(herd, "a").state is WorkerState.READY
    assert view_of(herd, "a").free_slots == 2


def test_a_worker_that_takes_fewer_requests_than_it_is_at_has_no_slot_free() -> None:
    herd = HerdModel()
    herd.join("a", slots=3)
    herd.infer()
    herd.infer()
    herd.generations["a"] = 0
    herd.join("a", slots=1)
    assert view_of(herd, "a").busy_slots == 2
    assert view_of(herd, "a").free_slots == 0


def test_a_worker_that_has_failed_rests_for_as_long_as_its_view_says() -> None:
    herd = HerdModel(PATIENT)
    herd.join("a", slots=2)
    for failures, rest in ((1, 2), (2, 4)):
        herd.infer(model=str(failures))
        herd.fail(herd.at("a")[0], LOAD_FAILED)
        view = view_of(herd, "a")
        assert (view.state, view.resting_seconds) == (WorkerState.RESTING, rest)
        assert (view.failures, view.free_slots) == (failures, 0)
        herd.wait(rest / 2)
        assert view_of(herd, "a").resting_seconds == rest / 2
        herd.wait(rest / 2)
        view = view_of(herd, "a")
        assert (view.state, view.resting_seconds) == (WorkerState.READY, 0)
        assert (view.failures, view.free_slots) == (failures, 2)
    herd.infer()
    herd.run_to_the_end()
    assert view_of(herd, "a").failures == 0


def test_a_worker_that_drains_while_it_rests_drains() -> None:
    herd = HerdModel(PATIENT)
    herd.join("a")
    herd.infer()
    herd.fail(herd.at("a")[0], LOAD_FAILED)
    herd.drain("a", True)
    assert view_of(herd, "a").state is WorkerState.DRAINING


# Rates


def test_each_workers_rate_is_its_own_and_counts_from_when_it_registered() -> None:
    herd = HerdModel(PATIENT)
    herd.join("old", slots=1)
    herd.wait(30)
    herd.join("new", slots=1)
    herd.infer()
    herd.infer()
    herd.answer(herd.at("old")[0], tokens=100)
    herd.answer(herd.at("new")[0], tokens=40)
    herd.wait(10)
    assert view_of(herd, "old").rates == Rates(1 / 40, 100 / 40)
    assert view_of(herd, "new").rates == Rates(1 / 10, 40 / 10)


def test_the_rates_of_models_add_up_to_the_whole() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    herd.wait(5)
    for model, tokens in ((MODEL, 100), (OTHER_MODEL, 40), (MODEL, 60)):
        herd.infer(model=model)
        herd.answer(herd.at("a")[0], tokens=tokens)
        herd.finish(herd.at("a")[0])
    herd.wait(5)
    assert herd.scheduler.rate_window(herd.now) == 10
    assert herd.scheduler.per_second(herd.now) == Rates(0.3, 20)
    assert model_of(herd, MODEL).rates == Rates(0.2, 16)
    assert model_of(herd, OTHER_MODEL).rates == Rates(0.1, 4)


# Models


def test_a_models_units_are_told_apart_from_anothers() -> None:
    herd = HerdModel(Rules(lease_seconds=1e6, failure_rest_seconds=0))
    herd.join("a", slots=1)
    herd.score(100, model=MODEL)
    herd.infer(model=OTHER_MODEL)
    (dispatch,) = herd.at("a")
    running = len(dispatch.questions)
    assert model_of(herd, MODEL).totals == Totals(queued=100 - running, running=running)
    assert model_of(herd, OTHER_MODEL).totals == Totals(queued=1)
    herd.run_to_the_end()
    herd.infer(model=OTHER_MODEL)
    herd.fail(herd.at("a")[0], LOAD_FAILED, blamed=False)
    assert model_of(herd, MODEL).totals == Totals(completed=100)
    assert model_of(herd, OTHER_MODEL).totals == Totals(completed=1, failed=1)


def test_a_model_that_brings_workers_down_is_told_to_rest() -> None:
    herd = HerdModel(Rules(lease_seconds=1e6, crashes=1, model_rest_seconds=100))
    herd.join("a")
    herd.infer(model=MODEL)
    assert model_of(herd, MODEL).resting_seconds == 0
    herd.crash("a")
    herd.wait(90)
    herd.infer(model=OTHER_MODEL)
    assert model_of(herd, MODEL).resting_seconds == 10
    assert model_of(herd, OTHER_MODEL).resting_seconds == 0
    assert (herd.scheduler.model_rests, herd.scheduler.resting_models(herd.now)) == (1, 1)
    herd.wait(10)
    assert model_of(herd, MODEL).resting_seconds == 0
    assert (herd.scheduler.model_rests, herd.scheduler.resting_models(herd.now)) == (1, 0)


# What has happened


def test_rests_are_counted_by_why_they_were_given() -> None:
    herd = HerdModel(PATIENT)
    herd.join("a", slots=1)
    herd.infer()
    herd.refuse(herd.at("a")[0])
    herd.wait(1)
    herd.refuse(herd.at("a")[0])
    herd.wait(2)
    herd.fail(herd.at("a")[0], LOAD_FAILED)
    herd.wait(2)
    herd.infer()
    # Before it was accepted: the worker cannot be reached.
    herd.lose(herd.at("a")[0])
    assert herd.scheduler.rests == {Rest.BUSY: 2, Rest.FAILURE: 1, Rest.UNREACHABLE: 1}


def test_departures_are_counted_by_why_a_worker_went() -> None:
    herd = HerdModel(Rules(lease_seconds=100, hung_seconds=60))
    herd.join("busy", slots=1)
    herd.infer()
    for address in ("left", "replaced", "dismissed"):
        herd.join(address)
    herd.carry_out(herd.scheduler.worker_left("left", 1, herd.now))
    herd.join("replaced")
    herd.carry_out(herd.scheduler.assign("dismissed", frozenset(), herd.now))
    herd.wait(60)
    herd.wait(40)
    assert herd.scheduler.departures == dict.fromkeys(Departure, 1)

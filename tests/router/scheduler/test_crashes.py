from __future__ import annotations

from dataclasses import replace

from evalpool_router.scheduler import Rules
from evalpool_router.scheduler.crashes import Crashes
from evalpool_runtime.errors import Internal, reasons
from tests.router.scheduler.herd_model import MODEL, OTHER_MODEL, HerdModel

EVIL, GOOD = MODEL, OTHER_MODEL
RULES = Rules(crashes=3, model_rest_seconds=60, longest_model_rest_seconds=200)
PATIENT = Rules(lease_seconds=1e6, hung_seconds=1e6)
"""A worker is believed in while it starts again after a crash."""


def lose(crashes: Crashes, *models: str, times: int = 1, now: float = 0.0) -> frozenset[str]:
    suspects = frozenset[str]()
    for _ in range(times):
        suspects = crashes.worker_lost(set(models), now)
    return suspects


def test_a_model_that_too_many_workers_are_lost_over_rests() -> None:
    crashes = Crashes(RULES)
    lose(crashes, EVIL, times=2)
    assert crashes.rest_of(EVIL, 0.0) == 0
    lose(crashes, EVIL)
    assert crashes.rest_of(EVIL, 0.0) == 60
    assert crashes.rest_of(EVIL, 59.0) == 1
    assert crashes.rest_of(EVIL, 60.0) == crashes.rest_of(GOOD, 0.0) == 0


def test_each_worker_that_is_lost_after_a_rest_makes_the_next_one_longer() -> None:
    crashes = Crashes(RULES)
    lose(crashes, EVIL, times=3)
    for rest in (120, 200, 200):
        lose(crashes, EVIL)
        assert crashes.rest_of(EVIL, 0.0) == rest


def test_an_answer_forgives_everything() -> None:
    crashes = Crashes(RULES)
    for _ in range(2):
        lose(crashes, EVIL, times=3)
        crashes.answered(EVIL, workers=1)
        assert crashes.rest_of(EVIL, 0.0) == 0
        lose(crashes, EVIL, times=3)
        assert crashes.rest_of(EVIL, 0.0) == 0
        lose(crashes, EVIL)
        assert crashes.rest_of(EVIL, 0.0) == 60


def test_of_models_lost_together_the_one_that_never_answers_is_suspected() -> None:
    crashes = Crashes(RULES)
    crashes.answered(GOOD, workers=1)
    for _ in range(3):
        assert lose(crashes, EVIL, GOOD) == {EVIL}
    assert crashes.rest_of(EVIL, 0.0) == 60
    assert crashes.rest_of(GOOD, 0.0) == 0


def test_models_that_are_always_lost_together_are_both_suspected_and_neither_rests() -> None:
    crashes = Crashes(RULES)
    assert lose(crashes, EVIL, GOOD, times=5) == {EVIL, GOOD}
    assert crashes.rest_of(EVIL, 0.0) == crashes.rest_of(GOOD, 0.0) == 0
    assert lose(crashes, EVIL) == {EVIL}
    assert crashes.rest_of(EVIL, 0.0) == 60


def herd_of(*addresses: str, rules: Rules = PATIENT) -> HerdModel:
    herd = HerdModel(rules)
    for address in addresses:
        herd.join(address, slots=4)
    return herd


def crash(herd: HerdModel, address: str) -> None:
    herd.crash(address)
    herd.wait(herd.rules.longest_rest_seconds)


def test_a_model_that_brings_workers_down_costs_few_of_them_whatever_is_asked_of_it() -> None:
    herd = herd_of("a", "b", rules=replace(PATIENT, crashes=5, losses=9))
    run, prompt = herd.score(1000, model=EVIL), herd.infer(model=EVIL)
    for _ in range(4):
        crash(herd, next(iter(herd.running.values())).worker)
        assert run not in herd.ended
    crash(herd, next(iter(herd.running.values())).worker)
    assert not herd.running
    for request in (run, prompt):
        error = herd.ended[request]
        assert isinstance(error, Internal)
        assert error.reason == reasons.ERROR_REASON_ENGINE_FAILED
    totals = herd.scheduler.totals()
    assert (totals.queued, totals.running) == (0, 0)


def test_a_model_that_rests_is_not_tried_until_its_rest_is_over() -> None:
    herd = herd_of("a", rules=replace(PATIENT, crashes=1, model_rest_seconds=100))
    herd.infer(model=EVIL)
    herd.crash("a")
    herd.wait(90)
    error = herd.ended[herd.infer(model=EVIL)]
    assert isinstance(error, Internal)
    assert error.retry_after == 10
    other = herd.infer(model=GOOD)
    assert [d.request for d in herd.at("a")] == [other]
    herd.run_to_the_end()
    herd.wait(10)
    later = herd.infer(model=EVIL)
    herd.run_to_the_end()
    assert herd.ended[later] is None


def test_what_was_lost_along_with_a_suspected_model_has_not_been_lost_too_often() -> None:
    herd = herd_of("a", rules=replace(PATIENT, losses=1))
    herd.infer(model=GOOD)
    herd.run_to_the_end()
    run, prompt = herd.score(20, model=GOOD), herd.infer(model=GOOD)
    for _ in range(3):
        victim = herd.infer(model=EVIL)
        crash(herd, "a")
        assert herd.ended[victim] is not None
    assert not herd.given_up[run]
    herd.run_to_the_end()
    assert len(herd.done[run]) == 20
    assert herd.ended[run] is herd.ended[prompt] is None


def test_a_line_that_is_cut_to_all_workers_at_once_is_not_their_models_doing() -> None:
    addresses = [f"worker {number}" for number in range(10)]
    herd = herd_of(*addresses, rules=replace(PATIENT, crashes=5))
    herd.infer(model=GOOD)
    herd.run_to_the_end()
    run = herd.score(1000, model=GOOD)
    for address in addresses:
        assert herd.at(address)
        herd.crash(address)
    herd.wait(1)
    assert run not in herd.ended
    herd.run_to_the_end()
    assert herd.ended[run] is None


def test_an_answer_that_had_begun_ends_with_its_worker_whatever_brought_it_down() -> None:
    herd = herd_of("a")
    herd.infer(model=GOOD)
    herd.run_to_the_end()
    begun = herd.infer(model=GOOD)
    herd.send_a_part(herd.at("a")[0])
    herd.infer(model=EVIL)
    herd.crash("a")
    error = herd.ended[begun]
    assert error is not None
    assert error.reason == reasons.ERROR_REASON_WORKER_LOST


def test_a_dispatch_that_goes_on_was_not_lost_with_the_others_of_its_worker() -> None:
    herd = herd_of("a", rules=replace(PATIENT, losses=1))
    herd.infer(model=GOOD)
    herd.run_to_the_end()
    survivor = herd.infer(model=GOOD)
    herd.infer(model=EVIL)
    going_on, broken = herd.at("a")
    for dispatch in (going_on, broken):
        herd.scheduler.accepted(dispatch.id, herd.now)
    herd.running.pop(broken.id)
    herd.carry_out(herd.scheduler.lost(broken.id, herd.now, broke_off=True))
    herd.scheduler.progressed(going_on.id, herd.now)
    herd.lose(going_on)
    error = herd.ended[survivor]
    assert error is not None
    assert error.reason == reasons.ERROR_REASON_WORKER_LOST


def test_workers_that_hang_or_start_anew_in_the_midst_of_work_count_too() -> None:
    herd = herd_of("a", rules=replace(PATIENT, crashes=2, losses=9, hung_seconds=50))
    request = herd.infer(model=EVIL)
    herd.scheduler.accepted(herd.at("a")[0].id, herd.now)
    herd.wait(50)
    herd.join("a")
    herd.wait(30)
    herd.scheduler.accepted(herd.at("a")[0].id, herd.now)
    assert request not in herd.ended
    herd.join("a")
    error = herd.ended[request]
    assert error is not None
    assert error.reason == reasons.ERROR_REASON_ENGINE_FAILED

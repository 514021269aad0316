from __future__ import annotations

from evalpool_router.scheduler import Kind
from evalpool_runtime.errors import (
    DeadlineExceeded,
)
from tests.router.scheduler.herd_model import HerdModel


def test_a_result_counts_once() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    run = herd.score(20)
    dispatch = herd.at("a")[0]
    assert herd.answer(dispatch, [3, 3, 4]) == (3, 4)
    assert herd.answer(dispatch, [3]) == ()
    assert herd.answer(dispatch, [99]) == ()
    assert herd.done[run] == [3, 4]


def test_cancelling_frees_the_slot_and_forgets_what_waits() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    run = herd.score(500)
    other = herd.infer()
    dispatch = herd.at("a")[0]
    herd.cancel(run)
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


def test_loaded_models_are_listed_with_those_of_most_workers_first() -> None:
    herd = HerdModel()
    assert herd.scheduler.loaded_models(Kind.CHAT) == []
    herd.join("a", models=["x", "y"])
    herd.join("b", models=["y"])
    herd.join("c", models=["z"], kinds=frozenset({Kind.JUDGE}))
    assert herd.scheduler.loaded_models(Kind.CHAT) == ["y", "x"]


def test_time_is_not_waited_for_on_behalf_of_a_request_that_has_ended() -> None:
    herd = HerdModel()
    herd.join("a")
    herd.infer(deadline=110.0)
    herd.run_to_the_end()
    assert herd.scheduler.next_time() is None
    herd.infer(deadline=120.0)
    assert herd.scheduler.next_time() == 120.0

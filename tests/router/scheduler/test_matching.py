from __future__ import annotations

from evalpool_router.scheduler import Kind
from evalpool_runtime.errors import FailedPrecondition, reasons
from tests.router.scheduler.herd_model import MODEL, OTHER_MODEL, HerdModel


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


def test_two_packages_are_at_a_worker_at_once_whatever_its_slots() -> None:
    herd = HerdModel()
    herd.join("a", slots=8)
    herd.score(1000)
    assert len(herd.at("a")) == 2
    herd.infer()
    assert len(herd.at("a")) == 3


def test_a_worker_whose_memory_cannot_hold_the_model_is_not_chosen() -> None:
    herd = HerdModel()
    herd.join("small", memory=100, slots=4)
    herd.join("large", memory=200, slots=4)
    herd.infer(size=100, tokens=1000)
    herd.infer(size=101, tokens=5000)
    herd.infer(size=200, tokens=1)
    assert [d.worker for d in herd.dispatched] == ["small", "large", "large"]


def test_among_workers_that_hold_the_model_the_least_loaded_is_chosen() -> None:
    herd = HerdModel()
    for address, memory in (("a", 100), ("b", 1000), ("c", 1010), ("d", 4000)):
        herd.join(address, memory=memory, slots=9)
    for tokens in (4, 3, 2):
        herd.infer(size=1005, tokens=tokens)
    assert [d.worker for d in herd.dispatched] == ["c", "d", "d"]
    herd.infer(size=1000, tokens=9)
    herd.infer(size=1000)
    assert [d.worker for d in herd.dispatched[3:]] == ["b", "c"]


def test_where_a_size_is_not_known_any_worker_may_try() -> None:
    herd = HerdModel()
    herd.join("small", memory=1, slots=1)
    herd.join("silent", memory=0, slots=1)
    herd.infer(size=0)
    herd.infer(size=10**15)
    assert [d.worker for d in herd.dispatched] == ["small", "silent"]


def test_what_no_free_worker_can_take_holds_up_nothing_behind_it() -> None:
    herd = HerdModel()
    herd.join("large", memory=200, slots=1)
    herd.infer(size=200)
    large = [herd.infer(size=200, caller=caller) for caller in ("x", "y")]
    assert herd.scheduler.position(large[0]) == 0
    small = [herd.infer(size=50, caller=caller) for caller in ("x", "z")]
    herd.join("small", memory=100, slots=2)
    assert [d.request for d in herd.at("small")] == small
    herd.complete(herd.at("large")[0])
    # Caller x has had a turn at the small one.
    assert [d.request for d in herd.at("large")] == large[1:]


def test_a_worker_that_joins_takes_what_it_holds_of_what_waited() -> None:
    herd = HerdModel()
    requests = {size: herd.infer(size=size) for size in (300, 10, 150, 50, 0, 100)}
    for memory, takes in ((100, [10, 50, 0, 100]), (149, []), (200, [150]), (1000, [300])):
        herd.join(f"with {memory}", memory=memory, slots=9)
        assert [d.request for d in herd.at(f"with {memory}")] == [requests[s] for s in takes]


def test_what_waits_keeps_its_turn_when_a_worker_joins() -> None:
    herd = HerdModel()
    herd.join("large", memory=200, slots=1)
    herd.infer(size=150)
    waiting = [
        herd.infer(size=size, caller=caller)
        for caller, size in (("x", 50), ("x", 150), ("y", 50), ("z", 150), ("y", 150))
    ]
    herd.join("small", memory=1, slots=1)
    herd.join("smaller than some", memory=60, slots=1)
    herd.carry_out(herd.scheduler.worker_left("smaller than some", 1, herd.now))
    order = []
    while herd.at("large"):
        herd.complete(herd.at("large")[0])
        order += [d.request for d in herd.at("large")]
    first, _, third, fourth, fifth = waiting
    assert order[:3] == [first, third, fourth]
    assert sorted(order[3:]) == sorted([waiting[1], fifth])


def test_models_of_several_sizes_give_a_caller_no_more_turns() -> None:
    herd = HerdModel()
    herd.join("small", memory=100, slots=1, kinds=frozenset({Kind.JUDGE}))
    herd.join("large", memory=200, slots=1)
    herd.infer(caller="first")
    for _ in range(3):
        herd.infer(caller="many", size=50)
        herd.infer(caller="many", size=150)
    for _ in range(3):
        herd.infer(caller="few", size=50)
    callers = []
    while herd.at("large"):
        herd.wait(1)
        herd.heartbeat("large")
        herd.complete(herd.at("large")[0])
        callers += [herd.requests[d.request].caller for d in herd.at("large")]
    assert callers == ["many", "few"] * 3 + ["many"] * 3


def test_a_request_that_no_worker_can_hold_waits_and_says_what_is_missing() -> None:
    herd = HerdModel()
    request = herd.score(5, size=5000, deadline=120.0)
    assert "evaluate" in herd.scheduler.stage(request)
    herd.join("small", memory=3000)
    herd.join("judge", memory=9000, kinds=frozenset({Kind.JUDGE}))
    assert not herd.running
    for number in ("5000", "3000"):
        assert number in herd.scheduler.stage(request)
        assert number in herd.scheduler.lack(request)
    herd.wait(10)
    herd.heartbeat("small")
    herd.wait(10)
    error = herd.ended[request]
    assert isinstance(error, FailedPrecondition)
    assert error.reason == reasons.ERROR_REASON_NO_WORKER
    assert "the model has 5000 bytes" in error.message
    assert "3000" in error.message


def test_a_request_that_waits_for_workers_that_drain_says_so() -> None:
    herd = HerdModel()
    herd.join("chats", kinds=frozenset({Kind.CHAT}))
    herd.join("judges", kinds=frozenset({Kind.JUDGE}))
    herd.drain("chats", True)
    herd.drain("judges", True)
    request = herd.score(1)
    assert herd.scheduler.lack(request).endswith("takes work of the kind evaluate; start one")
    herd.join("scores", draining=True)
    assert herd.scheduler.lack(request) == (
        "every worker of the herd that takes work of the kind evaluate drains; let one take work "
        "again (DrainWorker), or start one"
    )
    herd.drain("scores", False)
    assert herd.scheduler.stage(request) == "at work"


def test_a_request_says_whether_it_waits_or_is_at_work() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    first, second = herd.infer(), herd.infer()
    assert herd.scheduler.stage(first) == "at work"
    assert herd.scheduler.stage(second) == "waiting in the queue"
    assert herd.scheduler.lack(first) == herd.scheduler.lack(second) == ""
    herd.run_to_the_end()
    assert herd.scheduler.stage(first) == ""


def test_a_worker_that_can_just_hold_the_model_takes_what_waited_for_it() -> None:
    herd = HerdModel()
    herd.join("small", memory=99)
    request = herd.infer(size=100)
    herd.join("exact", memory=100)
    assert [d.request for d in herd.at("exact")] == [request]


def test_a_worker_that_is_dedicated_to_a_model_gets_no_other() -> None:
    herd = HerdModel()
    herd.join("server", only=[OTHER_MODEL])
    request = herd.infer()
    assert not herd.running
    herd.join("any")
    assert [(d.request, d.worker) for d in herd.dispatched] == [(request, "any")]


def test_idle_workers_that_are_dedicated_to_another_model_are_passed_over() -> None:
    herd = HerdModel()
    herd.join("any", slots=9)
    for server in ("a", "b", "c"):
        herd.join(server, only=[OTHER_MODEL])
    herd.infer(tokens=5000)
    herd.score(40)
    assert {d.worker for d in herd.running.values()} == {"any"}


def test_a_dedicated_worker_shares_the_work_for_its_model_with_those_that_take_any() -> None:
    herd = HerdModel()
    herd.join("any")
    herd.join("server", only=[OTHER_MODEL])
    for tokens in (300, 200, 50):
        herd.infer(model=OTHER_MODEL, tokens=tokens)
    assert [d.worker for d in herd.dispatched] == ["any", "server", "server"]


def test_a_dedicated_worker_that_has_its_model_loaded_goes_before_one_that_would_load_it() -> None:
    herd = HerdModel()
    herd.join("any")
    herd.join("server", models=[OTHER_MODEL, MODEL], only=[OTHER_MODEL])
    herd.infer(model=OTHER_MODEL)
    herd.infer(model=MODEL)
    assert [d.worker for d in herd.dispatched] == ["server", "any"]


def test_a_dedicated_worker_takes_its_models_whatever_their_size() -> None:
    herd = HerdModel()
    herd.join("any", memory=100)
    herd.join("server", memory=1, only=[MODEL, OTHER_MODEL])
    for model in (MODEL, OTHER_MODEL):
        herd.infer(model=model, size=10**12)
    assert [d.worker for d in herd.dispatched] == ["server", "server"]


def test_a_dedicated_worker_that_joins_takes_what_waited_for_its_model_in_its_turn() -> None:
    herd = HerdModel()
    herd.join("small", memory=1, slots=1)
    waiting = [
        herd.infer(model=model, size=100, caller=caller)
        for caller, model in (("x", MODEL), ("x", OTHER_MODEL), ("x", MODEL), ("y", MODEL))
    ]
    herd.join("server", slots=2, only=[MODEL])
    assert [d.request for d in herd.at("server")] == [waiting[0], waiting[3]]
    herd.run_to_the_end()
    assert herd.dispatched[-1].request == waiting[2]
    herd.join("other server", only=[OTHER_MODEL])
    assert [d.request for d in herd.at("other server")] == [waiting[1]]


def test_what_waits_for_a_dedicated_worker_is_taken_by_one_that_holds_it() -> None:
    herd = HerdModel()
    herd.join("server", slots=1, only=[MODEL])
    herd.infer(size=100)
    request = herd.infer(size=100)
    herd.join("small", memory=99)
    assert not herd.at("small")
    herd.join("large", memory=100)
    assert [d.request for d in herd.at("large")] == [request]


def test_work_waits_for_a_dedicated_worker_after_another_one_has_gone() -> None:
    herd = HerdModel()
    herd.join("first", only=[MODEL])
    herd.leave("first")
    request = herd.infer(size=100)
    herd.join("other", only=[OTHER_MODEL])
    assert not herd.running
    herd.join("second", only=[MODEL])
    assert [(d.request, d.worker) for d in herd.dispatched] == [(request, "second")]


def test_a_worker_that_says_that_it_takes_one_model_alone_gets_no_other_from_then_on() -> None:
    herd = HerdModel()
    herd.join("a", slots=4)
    herd.restate("a", only=[MODEL])
    other, own = herd.infer(model=OTHER_MODEL), herd.infer()
    assert [d.request for d in herd.at("a")] == [own]
    herd.restate("a")
    assert [d.request for d in herd.at("a")] == [own, other]


def test_packages_are_cut_for_the_workers_that_take_the_model() -> None:
    herd = HerdModel()
    for server in ("a", "b", "c"):
        herd.join(server, only=[OTHER_MODEL])
    herd.join("any")
    herd.score(120)
    assert [len(d.questions) for d in herd.dispatched] == [60, 30]


def test_the_loaded_models_are_those_that_workers_take() -> None:
    herd = HerdModel()
    herd.join("server", models=[MODEL, OTHER_MODEL], only=[OTHER_MODEL])
    assert herd.scheduler.loaded_models(Kind.CHAT) == [OTHER_MODEL]


def test_a_request_for_a_model_that_workers_dedicated_to_others_do_not_take_says_so() -> None:
    herd = HerdModel()
    herd.join("server", only=[OTHER_MODEL], memory=9000)
    request = herd.infer(size=5000, deadline=120.0)
    missing = (
        "no worker of the herd takes this model: those that take work of the kind chat serve other "
        "models alone; start one"
    )
    assert herd.scheduler.lack(request) == missing
    herd.join("small", memory=3000)
    assert herd.scheduler.lack(request) == (
        "the model has 5000 bytes, and the largest worker for work of the kind chat that takes any "
        "model gives models 3000; start one with more memory"
    )
    herd.leave("small")
    herd.wait(10)
    herd.heartbeat("server")
    herd.wait(10)
    error = herd.ended[request]
    assert isinstance(error, FailedPrecondition)
    assert error.reason == reasons.ERROR_REASON_NO_WORKER
    assert missing in error.message


def test_a_request_that_waits_for_the_worker_of_its_model_which_drains_says_so() -> None:
    herd = HerdModel()
    herd.join("server", only=[OTHER_MODEL])
    herd.join("own", only=[MODEL])
    herd.drain("own", True)
    request = herd.infer()
    assert herd.scheduler.lack(request) == (
        "every worker of the herd that takes this model for work of the kind chat drains; let one "
        "take work again (DrainWorker), or start one"
    )
    herd.drain("own", False)
    assert herd.scheduler.stage(request) == "at work"

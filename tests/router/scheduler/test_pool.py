from __future__ import annotations

import pytest

from evalpool_router.scheduler import Kind, Registration, Rules
from evalpool_router.scheduler.memory import NOBODY
from evalpool_router.scheduler.pool import Pool
from evalpool_router.scheduler.throughput import Throughput
from evalpool_router.scheduler.work import Incarnation, Lane, Requirement
from evalpool_router.scheduler.worker import Worker
from tests.router.scheduler.herd_model import MODEL, OTHER_MODEL

CHAT = Lane(Kind.CHAT, False)


def worker(address: str, memory: int, *only: str) -> Worker:
    registration = Registration(
        address, 1, frozenset({Kind.CHAT}), 1, memory_bytes=memory, only_models=frozenset(only)
    )
    return Worker(registration, frozenset(), 100.0, 0.0, draining=False, throughput=Throughput(0.0))


def required(pool: Pool, size: int, model: str = MODEL) -> Requirement:
    return pool.require(model, size, frozenset())


def test_what_a_worker_gave_counts_until_it_leaves_or_says_something_else() -> None:
    pool = Pool((CHAT,), Rules())
    changing, leaving = worker("changing", 100), worker("leaving", 300)
    pool.add(changing, 0.0)
    pool.add(leaving, 0.0)
    assert [required(pool, size).memory for size in (50, 200, 301)] == [100, 300, NOBODY]
    pool.remove(leaving)
    assert required(pool, 200).memory == NOBODY
    pool.renew(changing, worker("changing", 200).registration, 0.0)
    assert required(pool, 50).memory == 200
    assert pool.able(Kind.CHAT, MODEL, 200) == 1
    assert pool.largest_memory(Kind.CHAT) == 200


def test_able_workers_are_counted_without_those_that_are_shunned() -> None:
    pool = Pool((CHAT,), Rules())
    for address, memory in (("small", 100), ("large", 300)):
        pool.add(worker(address, memory), 0.0)

    def able(size: int, *shunned: tuple[str, int]) -> int:
        return pool.able(Kind.CHAT, MODEL, size, frozenset(Incarnation(*each) for each in shunned))

    assert able(0) == 2
    assert able(0, ("small", 1)) == 1
    assert able(200, ("small", 1)) == 1
    assert able(200, ("large", 1)) == 0
    assert able(200, ("large", 2), ("gone", 1)) == 1
    assert pool.able(Kind.JUDGE, MODEL, 0) == 0


def test_a_dedicated_worker_counts_for_its_models_alone_whatever_its_memory() -> None:
    pool = Pool((CHAT,), Rules())
    server = worker("server", 100, MODEL)
    pool.add(server, 0.0)
    assert pool.any_takes(Kind.CHAT)
    assert not pool.any_takes(Kind.JUDGE)
    assert pool.largest_memory(Kind.CHAT) == 0
    assert [pool.able(Kind.CHAT, model, 5000) for model in (MODEL, OTHER_MODEL)] == [1, 0]
    assert pool.able(Kind.CHAT, OTHER_MODEL, 0) == 0
    assert pool.able(Kind.CHAT, MODEL, 0, frozenset({Incarnation("server", 1)})) == 0
    pool.add(worker("any", 200), 0.0)
    assert pool.able(Kind.CHAT, OTHER_MODEL, 150, frozenset({Incarnation("server", 1)})) == 1
    assert pool.largest_memory(Kind.CHAT) == 200
    pool.remove(server)
    assert [pool.able(Kind.CHAT, MODEL, size) for size in (200, 5000)] == [1, 0]


def test_only_work_for_a_model_that_workers_are_dedicated_to_is_told_from_other_work() -> None:
    pool = Pool((CHAT,), Rules())
    first, second = worker("first", 100, MODEL), worker("second", 100, MODEL, OTHER_MODEL)
    pool.add(worker("any", 100), 0.0)
    for each in (first, second):
        pool.add(each, 0.0)
    assert [required(pool, 50, model).model for model in (MODEL, OTHER_MODEL, "c" * 64)] == [
        MODEL,
        OTHER_MODEL,
        "",
    ]
    pool.remove(second)
    assert [required(pool, 50, model).model for model in (MODEL, OTHER_MODEL)] == [MODEL, ""]
    pool.renew(first, worker("first", 100).registration, 0.0)
    assert required(pool, 50) == Requirement(100)


def test_a_choice_looks_at_no_worker_that_is_dedicated_to_other_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = Pool((CHAT,), Rules())
    for number in range(100):
        pool.add(worker(f"other {number}", 100, OTHER_MODEL), 0.0)
    pool.add(worker("any", 100), 0.0)
    pool.add(worker("own", 100, MODEL), 0.0)
    looked_at = []
    meets = Worker.meets

    def noting(self: Worker, requirement: Requirement) -> bool:
        looked_at.append(self.address)
        return meets(self, requirement)

    monkeypatch.setattr(Worker, "meets", noting)
    for model in (MODEL, "c" * 64):
        chosen = pool.choose(CHAT, model, required(pool, 50, model))
        assert chosen is not None
        assert chosen.address == "any"
    assert set(looked_at) == {"any", "own"}

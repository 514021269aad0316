from __future__ import annotations

from evalpool_router.scheduler import Kind, Registration, Rules
from evalpool_router.scheduler.memory import NOBODY
from evalpool_router.scheduler.pool import Pool
from evalpool_router.scheduler.throughput import Throughput
from evalpool_router.scheduler.work import Incarnation, Lane
from evalpool_router.scheduler.worker import Worker

CHAT = Lane(Kind.CHAT, False)


def worker(address: str, memory: int, generation: int = 1) -> Worker:
    registration = Registration(address, generation, frozenset({Kind.CHAT}), 1, memory_bytes=memory)
    return Worker(registration, frozenset(), 100.0, 0.0, draining=False, throughput=Throughput(0.0))


def test_what_a_worker_gave_counts_until_it_leaves_or_says_something_else() -> None:
    pool = Pool((CHAT,), Rules())
    changing, leaving = worker("changing", 100), worker("leaving", 300)
    pool.add(changing, 0.0)
    pool.add(leaving, 0.0)
    assert [pool.least_holding(size) for size in (50, 200, 301)] == [100, 300, NOBODY]
    pool.remove(leaving)
    assert pool.least_holding(200) == NOBODY
    pool.renew(changing, worker("changing", 200).registration, 0.0)
    assert pool.least_holding(50) == 200
    assert pool.able(Kind.CHAT, 200) == 1
    assert pool.largest_memory(Kind.CHAT) == 200


def test_able_workers_are_counted_without_those_that_are_shunned() -> None:
    pool = Pool((CHAT,), Rules())
    for address, memory in (("small", 100), ("large", 300)):
        pool.add(worker(address, memory), 0.0)

    def able(size: int, *shunned: tuple[str, int]) -> int:
        return pool.able(Kind.CHAT, size, frozenset(Incarnation(*each) for each in shunned))

    assert able(0) == 2
    assert able(0, ("small", 1)) == 1
    assert able(200, ("small", 1)) == 1
    assert able(200, ("large", 1)) == 0
    assert able(200, ("large", 2), ("gone", 1)) == 1
    assert pool.able(Kind.JUDGE) == 0

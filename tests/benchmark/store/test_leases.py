"""Leases, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

from evalpool_benchmark.store import leases
from evalpool_benchmark.work_lease import WorkLeases
from evalpool_runtime.clock import ManualClock
from evalpool_runtime.database import Database

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LENGTH = timedelta(seconds=30)


async def acquire(store: Database, holder: str, now: datetime = NOW) -> bool:
    return await store.write(
        partial(leases.acquire, name="work", holder=holder, now=now, length=LENGTH)
    )


async def test_one_holder_at_a_time(store: Database) -> None:
    assert await acquire(store, "one")
    assert not await acquire(store, "another")
    assert await acquire(store, "one"), "its own lease can be prolonged"


async def test_a_lapsed_lease_can_be_taken_over_and_a_prolonged_one_not(store: Database) -> None:
    assert await acquire(store, "one")
    assert await acquire(store, "one", NOW + LENGTH / 2)
    assert not await acquire(store, "another", NOW + LENGTH)
    assert await acquire(store, "another", NOW + LENGTH * 1.5)
    assert not await acquire(store, "one", NOW + LENGTH * 1.5)


async def test_a_released_lease_is_free_and_only_its_holder_releases_it(store: Database) -> None:
    assert await acquire(store, "one")
    await store.write(partial(leases.release, name="work", holder="another"))
    assert not await acquire(store, "another")
    await store.write(partial(leases.release, name="work", holder="one"))
    assert await acquire(store, "another")


async def test_of_many_who_want_a_lease_at_once_one_gets_it(store: Database) -> None:
    got = await asyncio.gather(*(acquire(store, f"holder-{n}") for n in range(8)))
    assert sum(got) == 1


async def test_work_waits_for_its_lease_and_gives_it_back(store: Database) -> None:
    clock = ManualClock(NOW)
    one = WorkLeases(store, clock, "one", 0.03)
    another = WorkLeases(store, clock, "another", 0.03)
    began, may_end, second = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def first_work() -> None:
        began.set()
        await may_end.wait()

    async def second_work() -> None:
        second.set()

    first = asyncio.ensure_future(one.run("work", first_work))
    await began.wait()
    await another.run_if_free("work", second_work)
    assert not second.is_set(), "work is left out where another replica is at it"
    waiting = asyncio.ensure_future(another.run("work", second_work))
    may_end.set()
    await asyncio.gather(first, waiting)
    assert second.is_set()


async def test_a_replica_whose_lease_was_taken_over_stops_its_work(store: Database) -> None:
    clock = ManualClock(NOW)
    one = WorkLeases(store, clock, "one", 0.03)
    began, stopped = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    running = asyncio.ensure_future(one.run("work", work))
    await began.wait()
    later = NOW + LENGTH
    assert await store.write(
        partial(leases.acquire, name="work", holder="another", now=later, length=LENGTH)
    )
    await running
    assert stopped.is_set()
    assert not await acquire(store, "one", later), "the other's lease is left alone"

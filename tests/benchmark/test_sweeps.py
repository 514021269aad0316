"""Sweeps by an injected clock: late, twice, and on two replicas, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from prometheus_client import CollectorRegistry

from evalpool_benchmark.metrics import BenchmarkMetrics
from evalpool_benchmark.store import leases
from evalpool_benchmark.sweeps import Sweeps
from evalpool_benchmark.work_lease import WorkLeases
from evalpool_runtime.clock import ManualClock
from evalpool_runtime.database import Database

DAY = 86_400.0
LEASE = timedelta(seconds=30)
MOMENT = timedelta(microseconds=1)


class Replicas:
    """Replicas of one service on one database, by one clock, and which of them swept."""

    def __init__(self, store: Database) -> None:
        self.clock = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
        self.swept: list[str] = []
        self._store = store

    def start(self, name: str) -> Sweeps:
        """A replica, or the same one after a restart."""
        metrics = BenchmarkMetrics(CollectorRegistry())
        work = WorkLeases(self._store, self.clock, name, LEASE.total_seconds())
        return Sweeps(self._store, work, metrics, self.clock, look_seconds=1.0)

    async def look(self, name: str) -> None:
        """A replica looks whether the sweep is due."""
        await self.start(name).run_if_due("sweep", DAY, partial(self._sweep, name))

    async def _sweep(self, name: str) -> None:
        self.swept.append(name)


@pytest.fixture
def replicas(store: Database) -> Replicas:
    return Replicas(store)


async def test_a_sweep_is_due_at_first_and_then_once_a_period(replicas: Replicas) -> None:
    await replicas.look("one")
    await replicas.look("one")
    replicas.clock.advance(timedelta(days=1) - MOMENT)
    await replicas.look("one")
    assert replicas.swept == ["one"]
    replicas.clock.advance(MOMENT)
    await replicas.look("one")
    assert replicas.swept == ["one", "one"]


async def test_a_period_is_one_for_all_replicas_and_goes_on_over_restarts(
    replicas: Replicas,
) -> None:
    await replicas.look("one")
    replicas.clock.advance(timedelta(hours=23))
    await replicas.look("another")
    await replicas.look("one, restarted")
    assert replicas.swept == ["one"]
    replicas.clock.advance(timedelta(hours=1))
    await replicas.look("another")
    await replicas.look("one, restarted")
    assert replicas.swept == ["one", "another"]


async def test_what_was_missed_is_made_up_for_once(replicas: Replicas) -> None:
    await replicas.look("one")
    replicas.clock.advance(timedelta(days=5, hours=7))
    await replicas.look("one")
    await replicas.look("one")
    assert replicas.swept == ["one", "one"]
    replicas.clock.advance(timedelta(hours=23))
    await replicas.look("one")
    assert replicas.swept == ["one", "one"], "the next is a period after the late one"


async def test_of_replicas_that_look_at_once_one_sweeps(replicas: Replicas) -> None:
    await asyncio.gather(*(replicas.look(f"replica {number}") for number in range(6)))
    assert len(replicas.swept) == 1


async def test_a_sweep_that_fails_is_due_again_at_once_for_anybody(replicas: Replicas) -> None:
    async def fail() -> None:
        raise OSError("the database is being moved")

    with pytest.raises(OSError, match="moved"):
        await replicas.start("one").run_if_due("sweep", DAY, fail)
    await replicas.look("another")
    assert replicas.swept == ["another"]


async def test_a_sweep_whose_replica_was_lost_is_taken_over_when_its_lease_has_lapsed(
    replicas: Replicas, store: Database
) -> None:
    # As a kill in the middle of the sweep leaves it: the lease held, the sweep not done.
    held = partial(
        leases.acquire, name="sweep sweep", holder="lost", now=replicas.clock.now(), length=LEASE
    )
    assert await store.write(held)
    await replicas.look("another")
    assert replicas.swept == []
    replicas.clock.advance(LEASE)
    await replicas.look("another")
    assert replicas.swept == ["another"]


async def test_the_time_of_a_sweep_is_shown(store: Database) -> None:
    clock = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    registry = CollectorRegistry()
    work = WorkLeases(store, clock, "one", 30.0)
    sweeps = Sweeps(store, work, BenchmarkMetrics(registry), clock, look_seconds=1.0)

    async def sweep() -> None:
        clock.advance(timedelta(minutes=10))

    await sweeps.run_if_due("leaderboards", DAY, sweep)

    name = "evalpool_benchmark_sweep_timestamp_seconds"
    began = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
    assert registry.get_sample_value(name, {"name": "leaderboards"}) == began

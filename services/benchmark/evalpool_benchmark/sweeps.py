"""Sweeps: work that is done once a period, by whichever replica comes first.

When a sweep was last done is kept in the database, so that the period goes on over restarts and is
one for all replicas. A sweep that was missed is made up for once, however long ago it was due; one
that fails, or whose replica is lost, is due again at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import structlog

from evalpool_benchmark.metrics import BenchmarkMetrics
from evalpool_benchmark.store import sweeps
from evalpool_benchmark.work_lease import WorkLeases
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database

_log = structlog.get_logger("evalpool.benchmark.sweeps")


class Sweeps:
    """Runs sweeps when they are due.

    Args:
        database: Where it is kept when they were done.
        leases: Keep two replicas from the same sweep.
        metrics: Tells when they were done.
        clock: What time it is.
        look_seconds: After how long it is looked again whether a sweep is due.
    """

    def __init__(
        self,
        database: Database,
        leases: WorkLeases,
        metrics: BenchmarkMetrics,
        clock: Clock,
        look_seconds: float,
    ) -> None:
        self._database = database
        self._leases = leases
        self._metrics = metrics
        self._clock = clock
        self._look_seconds = look_seconds

    async def run(self, name: str, seconds: float, sweep: Callable[[], Awaitable[object]]) -> None:
        """Do a sweep once a period, for ever.

        Args:
            name: The sweep's name.
            seconds: Its period.
            sweep: What it does; it may be done late, twice, or by two replicas.
        """
        while True:
            await self.run_if_due(name, seconds, sweep)
            await asyncio.sleep(self._look_seconds)

    async def run_if_due(
        self, name: str, seconds: float, sweep: Callable[[], Awaitable[object]]
    ) -> None:
        """Do a sweep now, if its last time is a period ago and no other replica is at it."""
        period = timedelta(seconds=seconds)
        if await self._is_due(name, period):
            await self._leases.run_if_free(f"sweep {name}", partial(self._do, name, period, sweep))

    async def _do(
        self, name: str, period: timedelta, sweep: Callable[[], Awaitable[object]]
    ) -> None:
        # Another replica may have done it just before the lease was free.
        if not await self._is_due(name, period):
            return
        began = self._clock.now()
        await sweep()
        await self._database.write(partial(sweeps.done, name=name, time=began))
        self._metrics.sweeps.labels(name).set(began.timestamp())
        _log.debug("a sweep is done", name=name)

    async def _is_due(self, name: str, period: timedelta) -> bool:
        last = await self._database.read(partial(sweeps.last_time, name=name))
        return last is None or last + period <= self._clock.now()

"""Background work of a service: loops that are kept alive, and sweeps that run every so often."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

FIRST_BACK_OFF = 0.2
LONGEST_BACK_OFF = 15.0


class Background:
    """Runs a service's loops and sweeps until it stops.

    A loop that raises is logged, counted and begun again after a back-off; nothing is lost by that,
    because loops go on from what is stored.
    """

    def __init__(self, stopping: asyncio.Event, registry: CollectorRegistry) -> None:
        self._stopping = stopping
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("evalpool.background")
        self._failures = Counter(
            "evalpool_background_failures_total",
            "Times that a loop or sweep raised and was begun again.",
            ["name"],
            registry=registry,
        )
        self._sweeps = Gauge(
            "evalpool_sweep_last_success_timestamp_seconds",
            "When a sweep last ended well, in seconds since 1970.",
            ["name"],
            registry=registry,
        )

    def spawn(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Keep a loop running. One that returns is done."""
        self._start(name, self._keep(name, loop))

    def every(self, name: str, seconds: float, sweep: Callable[[], Awaitable[object]]) -> None:
        """Run a sweep now and then every so many seconds."""

        async def loop() -> None:
            while not self._stopping.is_set():
                await sweep()
                self._sweeps.labels(name).set_to_current_time()
                # Replicas that start together should not sweep together.
                await self.pause(seconds * random.uniform(0.9, 1.1))  # noqa: S311

        self.spawn(name, loop)

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the service's stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def stop(self) -> None:
        """Cancel everything and wait for its end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, name: str, coroutine: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coroutine)
        task.set_name(name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        back_off = FIRST_BACK_OFF
        while not self._stopping.is_set():
            begun = asyncio.get_running_loop().time()
            try:
                await loop()
            except (Exception, asyncio.CancelledError) as error:
                # A call within the loop may have been cancelled, and the loop itself not.
                if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                    raise
                self._failures.labels(name).inc()
                if asyncio.get_running_loop().time() - begun > LONGEST_BACK_OFF:
                    back_off = FIRST_BACK_OFF
                self._log.warning(
                    "background work failed; it begins again",
                    name=name,
                    seconds=back_off,
                    exc_info=error,
                )
                await self.pause(back_off)
                back_off = min(back_off * 2, LONGEST_BACK_OFF)
            else:
                return


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

"""Work that one replica at a time does, as long as it holds the lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

from evalpool_benchmark.store import leases
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database

RENEWALS = 3
"""A lease is prolonged this many times before it would lapse."""


class WorkLeases:
    """Runs work under leases.

    Args:
        database: Where the leases are.
        clock: What time it is.
        holder: This process's name among the replicas.
        seconds: How long a lease lasts after its last renewal.
    """

    def __init__(self, database: Database, clock: Clock, holder: str, seconds: float) -> None:
        self._database = database
        self._clock = clock
        self._holder = holder
        self._length = timedelta(seconds=seconds)
        self._pause = seconds / RENEWALS

    async def run(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for a lease, then work while it is held; returns once it is lost or work is done."""
        # Another process has it, and cannot tell us when it ends.
        while not await self._acquire(name):  # noqa: ASYNC110
            await asyncio.sleep(self._pause)
        await self._work(name, work)

    async def run_if_free(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Work while a lease is held, unless another replica has it now."""
        if await self._acquire(name):
            await self._work(name, work)

    async def _work(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.ensure_future(work())
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=self._pause)
                if not task.done() and not await self._acquire(name):
                    return
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._release(name)

    async def _acquire(self, name: str) -> bool:
        return await self._database.write(
            partial(
                leases.acquire,
                name=name,
                holder=self._holder,
                now=self._clock.now(),
                length=self._length,
            )
        )

    async def _release(self, name: str) -> None:
        await self._database.write(partial(leases.release, name=name, holder=self._holder))

"""Watches: what changes of an entry and of a leaderboard, after a cursor, as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection

from evalpool_benchmark.entry import Entry
from evalpool_benchmark.leaderboard import Leaderboard
from evalpool_benchmark.leaderboards import standing
from evalpool_benchmark.pool import FROZEN, SETTLED, Pool
from evalpool_benchmark.settings import BenchmarkSettings
from evalpool_benchmark.store import entries, pools, results
from evalpool_benchmark.wakes import Wakes
from evalpool_runtime.database import Database
from evalpool_runtime.service import Runtime
from evalpool_runtime.watch import Changes

LIVE_EVERY = timedelta(seconds=2)
"""A watcher is shown the standing between snapshots no more often."""

_SNAPSHOTS_AT_A_TIME = 20


class Watches:
    """Follows entries and leaderboards for whoever watches them.

    Args:
        runtime: What the service runs on; its stop ends every watch.
        database: Where changes are seen, those of other replicas too.
        wakes: Tells of this process's own changes.
    """

    def __init__(
        self, runtime: Runtime[BenchmarkSettings], database: Database, wakes: Wakes
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._wakes = wakes

    async def entry(self, entry_id: str, after: int) -> AsyncGenerator[Entry, None]:
        """An entry at each change after a revision, until it is final.

        Raises:
            NotFound: There is no such entry.
            Unavailable: The service stops.
        """
        read = partial(entries.require, entry_id=entry_id)
        while True:
            seen = self._wakes.entries.version
            entry = await self._database.read(read)
            if entry.revision > after:
                yield entry
                after = entry.revision
            if entry.is_final:
                return
            await self._wait(self._wakes.entries, seen)

    async def leaderboard(self, pool_id: str, after: int) -> AsyncGenerator[Leaderboard, None]:
        """A pool's snapshots after a revision, and its standing as it changes in between.

        It ends when the pool is settled. The standing is shown only where it differs from what was
        shown last, and is looked at once in `LIVE_EVERY` at most, however much changes meanwhile.

        Raises:
            NotFound: There is no such pool.
            Unavailable: The service stops.
        """
        clock = self._runtime.clock
        shown = await self._database.read(partial(results.newest_snapshot, pool=pool_id))
        if shown is not None and (after == 0 or shown.revision > after):
            after, shown = after or shown.revision - 1, None
        changes: tuple[int, ...] | None = None
        next_look = clock.now()
        while True:
            seen = self._wakes.pools.version
            pool, boards = await self._database.read(
                partial(_snapshots, pool_id=pool_id, after=after)
            )
            for board in boards:
                yield board
                after, shown = board.revision, board
            if boards:
                continue
            now = clock.now()
            if pool.state(now) in SETTLED:
                return
            if now >= next_look:
                next_look = now + LIVE_EVERY
                changes, live = await self._database.read(
                    partial(_standing_if_changed, pool_id=pool_id, known=changes, now=now)
                )
                if live is not None and (shown is None or not live.shows_the_same_as(shown)):
                    yield live
                    shown = live
            await self._wait(self._wakes.pools, seen)

    async def _wait(self, changes: Changes, seen: int) -> None:
        if self._runtime.stopping.is_set():
            raise self._runtime.stopping_error()
        await changes.wait(seen, self._runtime.settings.watch_poll_seconds)


def _snapshots(connection: Connection, pool_id: str, after: int) -> tuple[Pool, list[Leaderboard]]:
    pool = pools.require(connection, pool_id)
    return pool, results.snapshots_after(connection, pool_id, after, _SNAPSHOTS_AT_A_TIME)


def _standing_if_changed(
    connection: Connection, pool_id: str, known: tuple[int, ...] | None, now: datetime
) -> tuple[tuple[int, ...] | None, Leaderboard | None]:
    """A running pool's standing where its changes are not those that are known."""
    pool = pools.require(connection, pool_id)
    if pool.state(now) in FROZEN:
        return known, None
    # Both only grow, so that no change can hide another.
    changes = (pool.funds, entries.changes_of(connection, pool_id))
    return changes, None if changes == known else standing(connection, pool, now)

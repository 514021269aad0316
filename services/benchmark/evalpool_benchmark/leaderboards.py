"""Takes snapshots of leaderboards, and computes live ones."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import Connection

from evalpool_benchmark.leaderboard import Leaderboard, rows_of
from evalpool_benchmark.payout import rewards
from evalpool_benchmark.pool import FROZEN, Pool
from evalpool_benchmark.ranking import rank
from evalpool_benchmark.single_flight import SingleFlight
from evalpool_benchmark.store import entries, pools, results
from evalpool_benchmark.wakes import Wakes
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database

UNCHANGED_FOR = timedelta(minutes=1)
"""A snapshot this young that shows the same is not taken again: callers share it."""

_log = structlog.get_logger("evalpool.benchmark.leaderboard")


class Leaderboards:
    """The pools' leaderboards.

    Args:
        database: Where entries and snapshots are kept.
        clock: What time it is.
        wakes: Who is told of a new snapshot.
    """

    def __init__(self, database: Database, clock: Clock, wakes: Wakes) -> None:
        self._database = database
        self._clock = clock
        self._wakes = wakes
        self._flights: SingleFlight[Leaderboard] = SingleFlight()

    async def get(self, pool: str, *, live: bool) -> Leaderboard:
        """The newest snapshot, or the present standing where there is none or it is asked for.

        Raises:
            NotFound: There is no such pool.
        """
        return await self._database.read(
            partial(_get, pool_id=pool, live=live, now=self._clock.now())
        )

    async def update(self, pool: str) -> Leaderboard:
        """Take a snapshot; callers at the same time share it.

        Raises:
            NotFound: There is no such pool.
        """
        return await self._flights.do(pool, partial(self._update, pool))

    async def sweep(self) -> None:
        """Take a snapshot of every pool that is running."""
        failures: list[Exception] = []
        for pool in await self._database.read(partial(pools.running, now=self._clock.now())):
            try:
                await self.update(pool)
            except Exception as error:
                # One pool that cannot be shown must not hold up the others.
                failures.append(error)
        if failures:
            raise ExceptionGroup("some leaderboards could not be taken", failures)

    async def stop(self) -> None:
        """Wait for snapshots under way."""
        await self._flights.stop()

    async def _update(self, pool: str) -> Leaderboard:
        board = await self._database.write(partial(_take, pool_id=pool, now=self._clock.now()))
        self._wakes.pools.notify()
        return board


def standing(connection: Connection, pool: Pool, now: datetime) -> Leaderboard:
    """A running pool's standing as it is, with the rewards if it ended now; not kept."""
    places = rank(entries.of_pool(connection, pool.id), pool.minimum)
    return Leaderboard(
        pool=pool.id,
        rows=rows_of(places, rewards(pool, places, pool.funds)),
        time=now,
        revision=0,
        final=False,
        funds=pool.funds,
    )


def _get(connection: Connection, pool_id: str, live: bool, now: datetime) -> Leaderboard:
    pool = pools.require(connection, pool_id)
    frozen = pool.state(now) in FROZEN
    newest = None if live and not frozen else results.newest_snapshot(connection, pool_id)
    return newest or standing(connection, pool, now)


def _take(connection: Connection, pool_id: str, now: datetime) -> Leaderboard:
    pool = pools.require(connection, pool_id, lock=True)
    newest = results.newest_snapshot(connection, pool_id)
    if newest is not None and newest.final:
        return newest
    board = standing(connection, pool, now)
    if newest is not None and board.shows_the_same_as(newest) and now - newest.time < UNCHANGED_FOR:
        return newest
    board = board.numbered(1 if newest is None else newest.revision + 1)
    results.add_snapshot(connection, board)
    return board

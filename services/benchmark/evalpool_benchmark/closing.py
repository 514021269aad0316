"""Carries ended pools to their payout: grace, freeze, plan, pay.

The plan, with the final leaderboard, is committed before anything is sent. What is sent follows
from it under request ids of the pool's, so that a crash anywhere and any number of repeats pay
everyone exactly once.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from itertools import groupby

import structlog
from sqlalchemy import Connection

from evalpool_benchmark.entry import Entry, cut_off
from evalpool_benchmark.leaderboard import Leaderboard, rows_of
from evalpool_benchmark.ledger import Ledger, Payment
from evalpool_benchmark.metrics import BenchmarkMetrics
from evalpool_benchmark.payout import (
    PayoutLine,
    payout_request,
    payout_tags,
    plan,
    returns_contributions,
)
from evalpool_benchmark.peers import PeerRefused, PeerUnavailable
from evalpool_benchmark.pool import Pool, PoolState, freeze, last_freeze_time, settle
from evalpool_benchmark.ranking import rank
from evalpool_benchmark.reconciler import Reconciler
from evalpool_benchmark.single_flight import SingleFlight
from evalpool_benchmark.store import entries, pools, results
from evalpool_benchmark.wakes import Wakes
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database
from evalpool_runtime.errors import FailedPrecondition, reasons

LOOK_AGAIN_SECONDS = 30.0
"""Other replicas make pools too, so the timer to the next end looks again after this."""

_log = structlog.get_logger("evalpool.benchmark.closing")


class Closing:
    """Closes pools and pays them out.

    Args:
        database: Where pools are kept.
        ledger: The token service.
        reconciler: Brings entries up to date before a result is frozen.
        wakes: Who is told of changes, and what wakes the timer.
        metrics: Counts settled pools.
        clock: What time it is.
        retry_seconds: After how long a payout that was refused is tried again.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        reconciler: Reconciler,
        wakes: Wakes,
        metrics: BenchmarkMetrics,
        clock: Clock,
        retry_seconds: float,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._reconciler = reconciler
        self._wakes = wakes
        self._metrics = metrics
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._flights: SingleFlight[datetime | None] = SingleFlight()

    async def run(self) -> None:
        """Carry pools on at their ends, for ever."""
        while True:
            seen = self._wakes.ends.version
            due = await self.sweep()
            end = await self._database.read(partial(pools.next_end, now=self._clock.now()))
            waits = [LOOK_AGAIN_SECONDS]
            for moment in (due, end):
                if moment is not None:
                    waits.append((moment - self._clock.now()).total_seconds())
            await self._wakes.ends.wait(seen, max(min(waits), 0.0))

    async def sweep(self) -> datetime | None:
        """Carry every ended pool on.

        Returns:
            When the next of them should be looked at again, or None.
        """
        return min(await self._advance_all(await self._ended()), default=None)

    async def allocate(self, pool_id: str) -> None:
        """Carry one ended pool on as far as it goes now, for a caller who asks for it.

        Raises:
            NotFound: There is no such pool.
            FailedPrecondition: Its end has not come.
        """
        pool = await self._database.read(partial(pools.require, pool_id=pool_id))
        if pool.state(self._clock.now()) in (PoolState.SCHEDULED, PoolState.OPEN):
            raise FailedPrecondition(
                reasons.ERROR_REASON_POOL_NOT_ENDED,
                f"pool: it ends at {pool.end_time:%Y-%m-%dT%H:%M:%SZ}; allocate its rewards then",
                end_time=pool.end_time.isoformat(),
            )
        await self.advance(pool_id, ask=True)

    async def allocate_all(self) -> list[str]:
        """Carry every ended pool on as far as it goes now, for a caller who asks for it.

        Returns:
            The pools' ids.
        """
        ended = await self._ended()
        await self._advance_all(ended, ask=True)
        return ended

    async def advance(self, pool: str, *, ask: bool = False) -> datetime | None:
        """Carry one pool on as far as it goes now; callers at the same time share the work.

        Args:
            pool: The pool's id.
            ask: Ask the dataset service for the standing of work in flight even while it has time
                left, instead of relying on what it tells by itself.

        Returns:
            When it should be looked at again, or None where it is settled or has not ended.

        Raises:
            NotFound: There is no such pool.
        """
        # One that does not ask must not answer for one that does.
        key = f"{pool} asking" if ask else pool
        return await self._flights.do(key, partial(self._advance, pool, ask))

    async def stop(self) -> None:
        """Stop what is under way; it goes on from what is stored."""
        await self._flights.stop()

    async def _ended(self) -> list[str]:
        now = self._clock.now()
        return await self._database.read(partial(pools.unsettled_after_end, now=now))

    async def _advance_all(self, ended: list[str], *, ask: bool = False) -> list[datetime]:
        """Carry pools on; gives when they should be looked at again."""
        due: list[datetime] = []
        failures: list[Exception] = []
        for pool in ended:
            try:
                again = await self.advance(pool, ask=ask)
            except Exception as error:
                # One pool that cannot be carried on must not hold up the others.
                failures.append(error)
                continue
            if again is not None:
                due.append(again)
        if failures:
            raise ExceptionGroup("some pools could not be carried on", failures)
        return due

    async def _advance(self, pool_id: str, ask: bool) -> datetime | None:
        pool = await self._database.read(partial(pools.require, pool_id=pool_id))
        if pool.state(self._clock.now()) is PoolState.CLOSING:
            due = await self._database.read(partial(_freeze_time, pool=pool))
            if self._clock.now() < due and not ask:
                return due
            reached = await self._bring_up_to_date(pool)
            pool, again = await self._database.write(
                partial(freeze_if_due, pool_id=pool_id, reached=reached, now=self._clock.now())
            )
            if again is not None:
                return again
            self._wakes.pools.notify()
            self._wakes.entries.notify()
        if pool.state(self._clock.now()) is PoolState.PAYING:
            try:
                await self._pay(pool)
            except (PeerUnavailable, PeerRefused) as error:
                self._metrics.waiting.labels("payout").inc()
                _log.warning("a payout waits", pool=pool_id, error=str(error))
                return self._clock.now() + timedelta(seconds=self._retry_seconds)
        return None

    async def _bring_up_to_date(self, pool: Pool) -> bool:
        runs = await self._database.read(partial(entries.open_runs, pool=pool.id))
        submitted = await self._reconciler.submit_due(pool.id)
        refreshed = await self._reconciler.refresh(runs)
        return submitted and refreshed

    async def _pay(self, pool: Pool) -> None:
        for batch, group in groupby(await self._batched_plan(pool.id), key=_batch):
            unpaid = list(group)
            if all(line.transfer for line in unpaid):
                continue
            # The whole batch goes under its one request id, even where some receipts are known.
            transfers = await self._ledger.pay_all(
                [
                    Payment(line.recipient, line.quantity, payout_tags(pool.id, line))
                    for line in unpaid
                ],
                payout_request(pool.id, batch),
            )
            receipts = {
                line.line: transfer for line, transfer in zip(unpaid, transfers, strict=True)
            }
            await self._database.write(
                partial(results.add_receipts, pool=pool.id, receipts=receipts)
            )
        settled = await self._database.write(
            partial(settle_if_paid, pool_id=pool.id, now=self._clock.now())
        )
        if settled is not None:
            self._metrics.settled.labels(settled.phase.value).inc()
            _log.info("a pool is settled", pool=pool.id, how=settled.phase.value)
        self._wakes.pools.notify()

    async def _batched_plan(self, pool: str) -> list[PayoutLine]:
        lines = await self._database.read(partial(results.plan_of, pool=pool))
        if all(line.batch is not None for line in lines):
            return lines
        size = await self._ledger.max_batch()
        return await self._database.write(partial(_cut, pool_id=pool, size=size))


def freeze_if_due(
    connection: Connection, pool_id: str, reached: bool, now: datetime
) -> tuple[Pool, datetime | None]:
    """Freeze a closing pool's result and commit its plan, unless work in flight has time left.

    Args:
        connection: The transaction.
        pool_id: The pool.
        reached: Whether the standing of all work in flight could be had.
        now: The time.

    Returns:
        The pool, and when to look again where it was not frozen.
    """
    pool = pools.require(connection, pool_id, lock=True)
    if pool.state(now) is not PoolState.CLOSING:
        return pool, None
    entered = entries.lock_of_pool(connection, pool_id)
    latest = last_freeze_time(pool, entered, unreachable=not reached)
    if now < latest:
        return pool, latest
    entered = [_finish(connection, entry, now) for entry in entered]
    places = rank(entered, pool.minimum)
    lines = plan(pool, places, pools.contributions_of(connection, pool_id))
    results.add_plan(connection, pool_id, lines)
    won = {line.entry: line.quantity for line in lines if line.entry}
    results.add_snapshot(
        connection,
        Leaderboard(
            pool=pool_id,
            rows=rows_of(places, won),
            time=now,
            revision=results.newest_revision(connection, pool_id) + 1,
            final=True,
            funds=pool.funds,
        ),
    )
    frozen = freeze(pool, now)
    pools.save(connection, frozen)
    return frozen, None


def settle_if_paid(connection: Connection, pool_id: str, now: datetime) -> Pool | None:
    """Settle a pool whose every line has its receipt.

    Returns:
        The pool as it is now settled; None where there was nothing to settle.
    """
    pool = pools.require(connection, pool_id, lock=True)
    if pool.state(now) is not PoolState.PAYING:
        return None
    lines = results.plan_of(connection, pool_id)
    if not all(line.transfer for line in lines):
        return None
    settled = settle(pool, now, returned=returns_contributions(lines))
    pools.save(connection, settled)
    return settled


def _cut(connection: Connection, pool_id: str, size: int) -> list[PayoutLine]:
    # Another replica may cut it at the same time; the first to lock the pool decides.
    pools.require(connection, pool_id, lock=True)
    return results.cut_plan(connection, pool_id, size)


def _batch(line: PayoutLine) -> int:
    if line.batch is None:
        raise AssertionError(f"line {line.line} of a plan that is cut is in no batch")
    return line.batch


def _freeze_time(connection: Connection, pool: Pool) -> datetime:
    return last_freeze_time(pool, entries.of_pool(connection, pool.id), unreachable=False)


def _finish(connection: Connection, entry: Entry, now: datetime) -> Entry:
    if entry.is_final:
        return entry
    ended = cut_off(entry, now)
    entries.save(connection, ended)
    return ended

"""Carries every incomplete entry on: submits it, and follows its run's score.

Entries are written before the dataset service is told of them, so that a crash between the two
leaves an entry to submit, never a run that nobody follows. Everything here may be done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable
from contextlib import aclosing
from functools import partial

import structlog
from sqlalchemy import Connection

from evalpool_benchmark.entry import Entry, EntryState, Score, bind, fail, follow
from evalpool_benchmark.metrics import BenchmarkMetrics
from evalpool_benchmark.peers import Datasets, PeerRefused, PeerUnavailable
from evalpool_benchmark.pool import Pool, PoolState
from evalpool_benchmark.store import entries, fundings, pools
from evalpool_benchmark.wakes import Wakes
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database

_AT_ONCE = 8
"""Calls to the dataset service at a time."""

_BATCH = 1_000
"""Scores read ahead of the database at most."""

_log = structlog.get_logger("evalpool.benchmark.entries")


class Reconciler:
    """Moves entries on.

    Args:
        database: Where entries are kept.
        datasets: The dataset service.
        wakes: Who is told of changes.
        metrics: Counts what waits.
        clock: What time it is.
        retry_seconds: After how long a peer that cannot be reached is tried again.
    """

    def __init__(
        self,
        database: Database,
        datasets: Datasets,
        wakes: Wakes,
        metrics: BenchmarkMetrics,
        clock: Clock,
        retry_seconds: float,
    ) -> None:
        self._database = database
        self._datasets = datasets
        self._wakes = wakes
        self._metrics = metrics
        self._clock = clock
        self._retry_seconds = retry_seconds

    async def submit(self) -> None:
        """Submit entries as they come, for ever."""
        while True:
            seen = self._wakes.joins.version
            await self.submit_waiting()
            await self._wakes.joins.wait(seen, self._retry_seconds)

    async def submit_waiting(self, pool: str | None = None) -> bool:
        """Tell the dataset service of every submitted entry, of one pool or of all.

        Returns:
            Whether it could be told of all of them.
        """
        waiting = await self._database.read(partial(entries.in_state, state=EntryState.SUBMITTED))
        return await self._all(
            self._submit(entry) for entry in waiting if pool is None or entry.pool == pool
        )

    async def retry_failed(self, pool: Pool) -> None:
        """Have the runs tried again that the machinery failed, at most once an hour each."""
        failed = await self._database.read(partial(entries.of_pool, pool=pool.id))
        hour = int(self._clock.now().timestamp()) // 3600
        await self._all(
            self._start(entry, f"{entry.benchmark_request}:retry:{hour}")
            for entry in failed
            if entry.state is EntryState.FAILED and entry.machinery_failed
        )

    async def follow(self) -> None:
        """Follow the scores for ever."""
        while True:
            try:
                await self._follow_stream()
            except (PeerUnavailable, PeerRefused) as error:
                _log.warning("scores cannot be followed now", error=str(error))
            await asyncio.sleep(self._retry_seconds)

    async def sweep(self) -> None:
        """Ask for the standing of every open run, and retry those that hold up a pool's end."""
        await self.refresh(await self._database.read(entries.open_runs))
        for pool in await self._database.read(
            partial(pools.page, now=self._clock.now(), limit=1_000, state=PoolState.CLOSING)
        ):
            await self.retry_failed(pool)

    async def refresh(self, runs: Collection[str]) -> bool:
        """Ask for the standing of some runs.

        Returns:
            Whether every one could be had.
        """
        return await self._all(self._refresh(run) for run in runs)

    async def _refresh(self, run: str) -> None:
        await self.apply([await self._datasets.score(run)])

    async def _submit(self, entry: Entry) -> None:
        try:
            await self._start(entry, entry.benchmark_request)
        except PeerRefused as refusal:
            _log.info("an entry cannot be evaluated", entry=entry.id, error=str(refusal))
            await self._fail(entry, refusal)

    async def _start(self, entry: Entry, request_id: str) -> None:
        pool = await self._database.read(partial(pools.get, pool_id=entry.pool))
        if pool is None:
            raise LookupError(f"entry {entry.id} has no pool")
        score = await self._datasets.benchmark(
            dataset=pool.dataset,
            version=pool.dataset_version,
            subject=entry.subject,
            evaluator=pool.evaluator,
            participant=entry.participant,
            request_id=request_id,
        )
        changed = await self._database.write(partial(self._bind, attempt=entry, score=score))
        self._notify(changed)
        # The run may have moved on before the entry was known to follow it.
        await self._refresh(score.run)

    async def _fail(self, attempt: Entry, refusal: PeerRefused) -> None:
        def work(connection: Connection) -> list[Entry]:
            entry = entries.lock(connection, attempt.id)
            if entry is None or not _same_attempt(entry, attempt):
                return []
            reason = refusal.reason or "The dataset service refused it."
            failed = fail(entry, reason, refusal.reason_code, self._clock.now())
            return _save_changed(connection, entry, failed)

        self._notify(await self._database.write(work))

    def _bind(self, connection: Connection, attempt: Entry, score: Score) -> list[Entry]:
        entry = entries.lock(connection, attempt.id)
        if entry is None:
            return []
        now = self._clock.now()
        if _same_attempt(entry, attempt):
            return _save_changed(connection, entry, bind(entry, score, now))
        return _save_changed(connection, entry, follow(entry, score, now))

    async def apply(self, scores: Collection[Score], cursor: int | None = None) -> None:
        """Move the entries on that follow these runs, and keep the cursor in the same commit."""
        newest: dict[str, Score] = {}
        for score in scores:
            known = newest.get(score.run)
            if known is None or score.cursor > known.cursor:
                newest[score.run] = score
        now = self._clock.now()

        def work(connection: Connection) -> list[Entry]:
            if cursor is not None:
                fundings.lock_cursor(connection, fundings.SCORES)
                fundings.move_cursor(connection, fundings.SCORES, cursor)
            changed: list[Entry] = []
            for entry in entries.lock_of_runs(connection, list(newest)):
                moved = follow(entry, newest[entry.run], now)
                changed += _save_changed(connection, entry, moved)
            return changed

        self._notify(await self._database.write(work))

    async def _follow_stream(self) -> None:
        after = await self._database.read(partial(fundings.cursor, name=fundings.SCORES))
        queue: asyncio.Queue[tuple[Score, int] | None] = asyncio.Queue(_BATCH)

        async def read() -> None:
            try:
                async with aclosing(self._datasets.scores(after)) as scores:
                    async for each in scores:
                        await queue.put(each)
            finally:
                await queue.put(None)

        reader = asyncio.ensure_future(read())
        try:
            ended = False
            while not ended:
                # Whatever has come while the last batch was kept goes into one transaction.
                batch = [await queue.get()]
                while not queue.empty():
                    batch.append(queue.get_nowait())
                ended = None in batch
                read_now = [each for each in batch if each is not None]
                if read_now:
                    await self.apply([score for score, _ in read_now], read_now[-1][1])
            await reader
        finally:
            reader.cancel()
            while not queue.empty():
                queue.get_nowait()
            await asyncio.gather(reader, return_exceptions=True)

    async def _all(self, calls: Iterable[Awaitable[None]]) -> bool:
        """Make some calls, a few at a time; one that fails does not hold up the others.

        Returns:
            Whether all went well.
        """
        places = asyncio.Semaphore(_AT_ONCE)

        async def make(call: Awaitable[None]) -> bool:
            async with places:
                try:
                    await call
                except (PeerUnavailable, PeerRefused) as error:
                    self._metrics.waiting.labels("entry").inc()
                    _log.warning("an entry waits for the dataset service", error=str(error))
                    return False
                return True

        return all(await asyncio.gather(*(make(call) for call in calls)))

    def _notify(self, changed: Collection[Entry]) -> None:
        if changed:
            self._wakes.entries.notify()
        if any(entry.is_final for entry in changed):
            # It may be the last that a pool's end waits for.
            self._wakes.ends.notify()


def _same_attempt(entry: Entry, attempt: Entry) -> bool:
    return entry.state is EntryState.SUBMITTED and entry.attempt == attempt.attempt


def _save_changed(connection: Connection, before: Entry, after: Entry) -> list[Entry]:
    if after is before:
        return []
    entries.save(connection, after)
    return [after]

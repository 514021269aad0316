"""Carries every incomplete entry on: submits it, and follows its run's score.

Entries are written before the dataset service is told of them, so that a crash between the two
leaves an entry to submit, never a run that nobody follows. One that has failed, and not by its
subject's fault, is submitted again after a pause that grows with its failures; the dataset service
then has its failed questions tried again. Everything here may be done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime
from functools import partial

import structlog
from sqlalchemy import Connection

from evalpool_benchmark.datasets import CursorAhead, Datasets
from evalpool_benchmark.entry import Entry, Score, bind, follow, refuse
from evalpool_benchmark.metrics import BenchmarkMetrics
from evalpool_benchmark.peers import PeerRefused, PeerUnavailable
from evalpool_benchmark.read_ahead import ReadAhead
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
        """Submit entries as they come, and again where they are to be tried again, for ever."""
        while True:
            seen = self._wakes.joins.version
            await self.submit_due()
            await self._wakes.joins.wait(seen, self._retry_seconds)

    async def submit_due(self, pool: str | None = None) -> bool:
        """Tell the dataset service of every entry that is due, of one pool or of all.

        Returns:
            Whether it could be told of all of them.
        """
        due = partial(entries.due, now=self._clock.now(), pool=pool)
        return await self._all(self._submit(entry) for entry in await self._database.read(due))

    async def follow(self) -> None:
        """Follow the scores for ever."""
        while True:
            try:
                await self._follow_stream()
            except CursorAhead as error:
                _log.warning("scores are followed from the beginning", error=str(error))
                await self._begin_anew()
                continue
            except (PeerUnavailable, PeerRefused) as error:
                _log.warning("scores cannot be followed now", error=str(error))
            await asyncio.sleep(self._retry_seconds)

    async def sweep(self) -> None:
        """Ask for the standing of every open run, for what the stream may have missed."""
        await self.refresh(await self._database.read(entries.open_runs))

    async def refresh(self, runs: Collection[str]) -> bool:
        """Ask for the standing of some runs.

        Returns:
            Whether every one could be had.
        """
        return await self._all(self._refresh(run) for run in runs)

    async def _refresh(self, run: str) -> None:
        await self.apply([await self._datasets.score(run)])

    async def _submit(self, entry: Entry) -> None:
        pool = await self._database.read(partial(pools.require, pool_id=entry.pool))
        if entry.failures:
            _log.info(
                "an entry is tried again",
                entry=entry.id,
                failures=entry.failures,
                reason_code=entry.reason_code,
            )
        try:
            score = await self._datasets.benchmark(
                dataset=pool.dataset,
                version=pool.dataset_version,
                subject=entry.subject,
                evaluator=pool.evaluator,
                participant=entry.participant,
                request_id=entry.benchmark_request,
            )
        except PeerRefused as refusal:
            _log.warning("an entry is refused", entry=entry.id, error=str(refusal))
            reason, code = refusal.reason, refusal.reason_code
            await self._change(entry, lambda present, now: refuse(present, reason, code, now))
            return
        await self._change(entry, lambda present, now: bind(present, score, now))
        # The run may have moved on before the entry was known to follow it.
        await self._refresh(score.run)

    async def _change(self, submitted: Entry, change: Callable[[Entry, datetime], Entry]) -> None:
        """Change an entry by what its submission brought, unless another attempt has begun."""

        def work(connection: Connection) -> list[Entry]:
            entry = entries.lock(connection, submitted.id)
            if entry is None or entry.attempt != submitted.attempt:
                return []
            return _save_changed(connection, entry, change(entry, self._clock.now()))

        self._notify(await self._database.write(work))

    async def apply(self, scores: Collection[Score], cursor: int | None = None) -> None:
        """Move the entries on that follow these runs, and keep the cursor in the same commit."""
        newest: dict[str, Score] = {}
        for score in scores:
            known = newest.get(score.run)
            if known is None or score.cursor >= known.cursor:
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
        async with ReadAhead(self._datasets.scores(after), _BATCH) as scores:
            # Whatever has come while the last batch was kept goes into one transaction.
            while (batch := await scores.batch()) is not None:
                await self.apply([score for score, _ in batch], batch[-1][1])

    async def _begin_anew(self) -> None:
        """Forget what the dataset service has forgotten: it was brought back to an earlier state.

        Its cursors say nothing beside ours, and runs may be missing; submitting an entry again
        finds its run, or begins it again.
        """
        now = self._clock.now()

        def work(connection: Connection) -> None:
            fundings.lock_cursor(connection, fundings.SCORES)
            fundings.reset_cursor(connection, fundings.SCORES)
            entries.submit_all_again(connection, now)

        await self._database.write(work)
        self._wakes.joins.notify()

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


def _save_changed(connection: Connection, before: Entry, after: Entry) -> list[Entry]:
    if after is before:
        return []
    entries.save(connection, after)
    return [after]

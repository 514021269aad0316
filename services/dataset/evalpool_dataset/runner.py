"""The runner: has open evaluations evaluated by the herd, a leased chunk at a time.

A chunk is some questions of one run. While its call to the router is open its leases are renewed;
what comes back is committed in groups, each result only under the fence it was claimed with. A
chunk that ends early gives back what no worker had started on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import uuid4

import structlog
from sqlalchemy import Connection

from evalpool_dataset.claiming import Claiming
from evalpool_dataset.evaluation import Evaluation, NotHeld, Policy, abandon, expire, renew
from evalpool_dataset.grouping import grouped
from evalpool_dataset.hold_back import HoldBack
from evalpool_dataset.metrics import DatasetMetrics
from evalpool_dataset.outcome import Answered, Chunk, Claim, Inference, Outcome, Started, Unanswered
from evalpool_dataset.parts import Kind
from evalpool_dataset.problem import BROKEN, ENGINE_FAILED, INTERRUPTED, CallEnded, Problem
from evalpool_dataset.store import evaluations
from evalpool_dataset.store.recording import Recorder, take_back
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database
from evalpool_runtime.watch import Changes

GROUP_SECONDS = 0.5
IDLE_SECONDS = 5.0
SHORTEST_IDLE_SECONDS = 0.05
LEASES_A_READ = 1000
UNFINISHED = Problem("the herd ended the call without an answer to every question", ENGINE_FAILED)


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """How the runner works; see `DatasetSettings`."""

    chunk_questions: int
    concurrent_chunks: int
    lease: timedelta
    policy: Policy


class Runner:
    """Drains open evaluations continuously.

    Args:
        database: The service's database.
        inference: The herd.
        kinds: The kinds of dataset, by name.
        changes: Woken after every commit.
        clock: What time it is.
        settings: How it works.
        stopping: Set when the service begins to stop.
        metrics: Counts outcomes.
    """

    def __init__(
        self,
        database: Database,
        inference: Inference,
        kinds: Mapping[str, Kind],
        changes: Changes,
        clock: Clock,
        settings: RunnerSettings,
        stopping: asyncio.Event,
        metrics: DatasetMetrics,
    ) -> None:
        self._database = database
        self._inference = inference
        self._changes = changes
        self._clock = clock
        self._settings = settings
        self._stopping = stopping
        self._metrics = metrics
        self._claiming = Claiming(kinds, uuid4().hex, settings.lease, settings.chunk_questions)
        self._wake = asyncio.Event()
        self._hold_back = HoldBack()
        self._log = structlog.get_logger("evalpool.dataset.runner")

    def wake(self) -> None:
        """Look for open evaluations at once."""
        self._wake.set()

    async def drain(self) -> None:
        """Keep chunks under way until the service stops."""
        under_way: set[asyncio.Task[None]] = set()
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                under_way = {task for task in under_way if not task.done()}
                await self._sleep(under_way, await self._fill(under_way))
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def expire(self) -> None:
        """Take back leases that have lapsed: what held them is gone."""
        now = self._clock.now()
        await self._take_back(partial(expire, now=now, policy=self._settings.policy), now, by=now)

    async def abandon(self) -> None:
        """Take back all leases; for a service that alone has the database, before it begins."""
        now = self._clock.now()
        await self._take_back(partial(abandon, now=now, policy=self._settings.policy), now, by=None)

    async def _take_back(
        self, end: Callable[[Evaluation], Evaluation], now: datetime, *, by: datetime | None
    ) -> None:
        found = True
        while found:
            leased = await self._database.read(
                partial(evaluations.leased, limit=LEASES_A_READ, by=by)
            )
            by_run: dict[str, list[int]] = {}
            for number, run in leased:
                by_run.setdefault(run, []).append(number)
            for run, ids in by_run.items():
                await self._database.write(
                    partial(take_back, run_id=run, ids=ids, end=end, now=now)
                )
            found = bool(by_run)
            if found:
                self._changes.notify()
                self.wake()

    async def _fill(self, under_way: set[asyncio.Task[None]]) -> float:
        """Begin chunks while there is room and something to do; returns when to look again."""
        while len(under_way) < self._settings.concurrent_chunks:
            if (wait := self._hold_back.seconds(self._clock.monotonic())) > 0:
                return wait
            chunk = await self._database.write(
                partial(self._claiming.next_chunk, now=self._clock.now())
            )
            if chunk is None:
                return await self._idle_seconds()
            under_way.add(asyncio.create_task(self._evaluate(chunk)))
        return IDLE_SECONDS

    async def _idle_seconds(self) -> float:
        """Until the next pause is over, or other replicas may have made something."""
        next_time = await self._database.read(evaluations.next_claim_time)
        if next_time is None:
            return IDLE_SECONDS
        seconds = (next_time - self._clock.now()).total_seconds()
        return min(max(seconds, SHORTEST_IDLE_SECONDS), IDLE_SECONDS)

    async def _sleep(self, under_way: set[asyncio.Task[None]], seconds: float) -> None:
        """Wait for a chunk's end, a wake-up, the stop, or so many seconds."""
        waiters = {
            asyncio.ensure_future(self._wake.wait()),
            asyncio.ensure_future(self._stopping.wait()),
        }
        try:
            await asyncio.wait(
                {*waiters, *under_way}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)

    async def _evaluate(self, chunk: Chunk) -> None:
        """Have a chunk evaluated; however that ends, what it left unfinished is given back."""
        unfinished = dict(chunk.claims)
        problem = INTERRUPTED
        try:
            problem = await self._ask_under_lease(chunk, unfinished)
        except Exception:
            # One chunk that breaks must not take the others with it.
            self._log.exception("a chunk broke", run=chunk.run.id)
            problem = BROKEN
        finally:
            if unfinished:
                await asyncio.shield(self._give_back(chunk, unfinished, problem))

    async def _ask_under_lease(self, chunk: Chunk, unfinished: dict[int, Claim]) -> Problem:
        """Ask the herd for as long as the leases hold; returns why questions are left, if any."""
        asking = asyncio.create_task(self._ask(chunk, unfinished))
        renewing = asyncio.create_task(self._keep_leases(chunk, unfinished))
        try:
            await asyncio.wait({asking, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
            renewing.result()
            return INTERRUPTED
        finally:
            for task in (asking, renewing):
                task.cancel()
            await asyncio.gather(asking, renewing, return_exceptions=True)

    async def _ask(self, chunk: Chunk, unfinished: dict[int, Claim]) -> Problem:
        """Ask the herd and commit what comes; returns why questions are left, if any are."""
        stream = self._inference.evaluate(
            chunk.evaluator, chunk.subject, chunk.asked, chunk.reference
        )
        try:
            async for group in grouped(stream, GROUP_SECONDS):
                await self._commit(chunk, group)
                for outcome in group:
                    if isinstance(outcome, Answered | Unanswered):
                        unfinished.pop(outcome.id, None)
        except CallEnded as error:
            problem = error.problem
            self._log.warning(
                "a call to the herd ended early",
                run=chunk.run.id,
                code=problem.code,
                why=problem.reason,
            )
            if problem.waits:
                self._hold_back.sent_away(self._clock.monotonic(), problem.retry_after)
            return problem
        return UNFINISHED

    async def _commit(self, chunk: Chunk, group: list[Outcome]) -> None:
        now = self._clock.now()
        policy = self._settings.policy
        unanswered = [outcome for outcome in group if isinstance(outcome, Unanswered)]
        # Before what was sent away can be claimed again.
        if any(isinstance(outcome, Started | Answered) for outcome in group):
            self._hold_back.answered()
        elif any(outcome.problem.waits for outcome in unanswered):
            self._hold_back.sent_away(self._clock.monotonic(), None)
        await self._database.write(lambda c: Recorder(c, chunk, now, policy).record(group))
        self._changes.notify()
        self._metrics.outcome("answered", sum(isinstance(o, Answered) for o in group))
        self._metrics.outcome("unanswered", len(unanswered))

    async def _give_back(
        self, chunk: Chunk, unfinished: dict[int, Claim], problem: Problem
    ) -> None:
        now = self._clock.now()
        policy = self._settings.policy
        try:
            await self._database.write(
                lambda c: Recorder(c, chunk, now, policy).give_back(unfinished, problem)
            )
        except Exception:
            self._log.exception("a chunk's leases were not given back; they will lapse")
        self._changes.notify()

    async def _keep_leases(self, chunk: Chunk, unfinished: dict[int, Claim]) -> None:
        """Renew the chunk's leases while its call is open; returns when all of them are lost."""
        seconds = self._settings.lease.total_seconds() / 3
        while True:
            await asyncio.sleep(seconds)
            claims = dict(unfinished)
            if claims and not await self._renew(claims):
                self._log.warning("all leases of a chunk are lost", run=chunk.run.id)
                return

    async def _renew(self, claims: dict[int, Claim]) -> bool:
        now = self._clock.now()

        def work(connection: Connection) -> bool:
            kept = False
            for number, evaluation in evaluations.lock(connection, sorted(claims)).items():
                with suppress(NotHeld):
                    renewed = renew(
                        evaluation,
                        fence=claims[number].fence,
                        now=now,
                        lease=self._settings.lease,
                    )
                    evaluations.save(connection, number, renewed)
                    kept = True
            return kept

        return await self._database.write(work)

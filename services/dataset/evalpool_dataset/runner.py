"""The runner: has open evaluations evaluated by the herd, a leased chunk at a time.

A chunk is some questions of one run. While its call to the router is open its leases are renewed;
what comes back is committed in groups, each result only under the fence it was claimed with. A
chunk that ends early gives back what no worker had started on.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import uuid4

import grpc
import structlog
from sqlalchemy import Connection

from evalpool.errors import CallError
from evalpool_dataset.evaluation import NotHeld, Policy, State, renew
from evalpool_dataset.grouping import grouped
from evalpool_dataset.inquiry import ask
from evalpool_dataset.metrics import DatasetMetrics
from evalpool_dataset.outcome import (
    Answered,
    Chunk,
    Inference,
    Outcome,
    Problem,
    Started,
    Unanswered,
    UnforeseenAnswer,
)
from evalpool_dataset.parts import Evaluator, Kind, Parameters
from evalpool_dataset.run import Run
from evalpool_dataset.scoring import Metric
from evalpool_dataset.store import definitions, evaluations, runs
from evalpool_dataset.store.evaluations import Claim
from evalpool_dataset.store.recording import Recorder, expire
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database
from evalpool_runtime.errors import reason_name as _name
from evalpool_runtime.errors import reasons
from evalpool_runtime.watch import Changes

GROUP_SECONDS = 0.2
IDLE_SECONDS = 5.0
SHORTEST_IDLE_SECONDS = 0.05
FAILED_CALL_SECONDS = 1.0
LAPSED_A_SWEEP = 1000
INTERRUPTED = Problem("the evaluation was interrupted")


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
        kinds: dict[str, Kind],
        changes: Changes,
        clock: Clock,
        settings: RunnerSettings,
        stopping: asyncio.Event,
        metrics: DatasetMetrics,
    ) -> None:
        self._database = database
        self._inference = inference
        self._kinds = kinds
        self._changes = changes
        self._clock = clock
        self._settings = settings
        self._stopping = stopping
        self._metrics = metrics
        self._holder = uuid4().hex
        self._wake = asyncio.Event()
        self._log = structlog.get_logger("evalpool.dataset.runner")

    def wake(self) -> None:
        """Look for open evaluations at once."""
        self._wake.set()

    async def drain(self) -> None:
        """Keep chunks under way until the service stops."""
        loop = asyncio.get_running_loop()
        under_way: set[asyncio.Task[float]] = set()
        held_back_until = 0.0
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                done = {task for task in under_way if task.done()}
                under_way -= done
                pause = max((self._pause_after(task) for task in done), default=0.0)
                held_back_until = max(held_back_until, loop.time() + pause)
                wait = held_back_until - loop.time()
                if wait <= 0:
                    wait = await self._fill(under_way)
                await self._sleep(under_way, wait)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def expire(self) -> None:
        """Take back leases that have lapsed: what held them is gone."""
        now = self._clock.now()
        policy = self._settings.policy
        by_run: dict[str, list[int]] = {}
        lapsed = await self._database.read(
            lambda connection: evaluations.lapsed(connection, now, LAPSED_A_SWEEP)
        )
        for number, run in lapsed:
            by_run.setdefault(run, []).append(number)
        for run, ids in by_run.items():
            await self._database.write(partial(expire, run_id=run, ids=ids, now=now, policy=policy))
        if by_run:
            self._changes.notify()
            self.wake()

    def _pause_after(self, task: asyncio.Task[float]) -> float:
        """Seconds to wait after a chunk; one that broke must not take the others with it."""
        error = task.exception()
        if error is None:
            return task.result()
        self._log.error("a chunk broke; its leases will lapse", exc_info=error)
        return FAILED_CALL_SECONDS

    async def _fill(self, under_way: set[asyncio.Task[float]]) -> float:
        """Begin chunks while there is room and something to do; returns when to look again."""
        while len(under_way) < self._settings.concurrent_chunks:
            chunk = await self._database.write(self._claim)
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

    async def _sleep(self, under_way: set[asyncio.Task[float]], seconds: float) -> None:
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

    def _claim(self, connection: Connection) -> Chunk | None:
        now = self._clock.now()
        for run in self._fairly(connection):
            claims = evaluations.claim_some(
                connection,
                run.id,
                holder=self._holder,
                now=now,
                lease=self._settings.lease,
                limit=self._settings.chunk_questions,
            )
            if claims:
                return self._chunk(connection, run, claims)
        return None

    def _fairly(self, connection: Connection) -> list[Run]:
        """Open runs, those with the fewest leased questions first, then the oldest."""
        found = runs.open_runs(connection)
        leased = {
            run.id: evaluations.open_count(connection, run.id).get(State.LEASED.value, 0)
            for run in found
        }
        return sorted(found, key=lambda run: (leased[run.id], run.number))

    def _chunk(self, connection: Connection, run: Run, claims: list[Claim]) -> Chunk:
        version = definitions.version_by_id(connection, run.version)
        definition = definitions.require_definition(connection, version.definition)
        evaluator = Evaluator(run.evaluator)
        parts = self._kinds[definition.kind].parts(
            Parameters(evaluator, Metric(definition.metric), definition.system_prompt)
        )
        seed = definitions.read_secret(connection, "choice-order")
        questions = definitions.questions_by_rows(connection, [c.question_row for c in claims])
        return Chunk(
            run=run,
            evaluator=evaluator,
            model_digest=definitions.model_by_id(connection, run.model).digest,
            claims={c.id: c for c in claims},
            asked={
                c.id: ask(parts, seed, version.digest, questions[c.question_row]) for c in claims
            },
            reference=f"{run.id}/{uuid4().hex[:16]}",
        )

    async def _evaluate(self, chunk: Chunk) -> float:
        """Have a chunk evaluated; returns seconds to wait before the next one."""
        unfinished = dict(chunk.claims)
        problem = INTERRUPTED
        asking = asyncio.create_task(self._ask(chunk, unfinished))
        renewing = asyncio.create_task(self._keep_leases(chunk, unfinished))
        try:
            await asyncio.wait({asking, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                renewing.result()
            else:
                problem = asking.result() or INTERRUPTED
        finally:
            for task in (asking, renewing):
                task.cancel()
            await asyncio.gather(asking, renewing, return_exceptions=True)
            if unfinished:
                await asyncio.shield(self._give_back(chunk, unfinished, problem))
        return problem.pause

    async def _ask(self, chunk: Chunk, unfinished: dict[int, Claim]) -> Problem | None:
        """Ask the herd and commit what comes; returns why the call ended early, where it did."""
        stream = self._inference.evaluate(
            chunk.evaluator, chunk.model_digest, chunk.asked, chunk.reference
        )
        try:
            async for group in grouped(stream, GROUP_SECONDS):
                await self._commit(chunk, group)
                for outcome in group:
                    if not isinstance(outcome, Started):
                        unfinished.pop(outcome.id, None)
        except grpc.aio.AioRpcError as error:
            call = CallError.of(error)
            self._log.warning(
                "a call to the herd ended early",
                run=chunk.run.id,
                code=call.code.name,
                why=call.message,
            )
            return Problem(
                call.message,
                call.reason,
                retryable=call.code is not grpc.StatusCode.INVALID_ARGUMENT,
                pause=call.retry_after or FAILED_CALL_SECONDS,
            )
        except UnforeseenAnswer as error:
            self._log.error("the herd answered what it was not asked", run=chunk.run.id, why=error)
            return Problem(
                str(error), _name(reasons.ERROR_REASON_ENGINE_FAILED), pause=FAILED_CALL_SECONDS
            )
        if unfinished:
            return Problem(
                "the herd ended the call without an answer to every question",
                _name(reasons.ERROR_REASON_ENGINE_FAILED),
                pause=FAILED_CALL_SECONDS,
            )
        return None

    async def _commit(self, chunk: Chunk, group: list[Outcome]) -> None:
        now = self._clock.now()
        policy = self._settings.policy
        await self._database.write(lambda c: Recorder(c, chunk, now, policy).record(group))
        self._changes.notify()
        self._metrics.outcome("answered", sum(isinstance(o, Answered) for o in group))
        self._metrics.outcome("unanswered", sum(isinstance(o, Unanswered) for o in group))

    async def _give_back(
        self, chunk: Chunk, unfinished: dict[int, Claim], problem: Problem
    ) -> None:
        now = self._clock.now()
        policy = self._settings.policy
        await self._database.write(
            lambda c: Recorder(c, chunk, now, policy).give_back(unfinished, problem)
        )
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

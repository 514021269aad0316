"""The runner: has open evaluations evaluated by the herd, a leased chunk at a time.

A chunk is some questions of one run. While its call to the router is open its leases are renewed;
what comes back is committed in groups, each result only under the fence it was claimed with. A
chunk that ends early gives back what no worker had started on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol
from uuid import uuid4

import grpc
import structlog
from sqlalchemy import Connection

from evalpool.errors import CallError
from evalpool_dataset.evaluation import (
    NotHeld,
    Policy,
    State,
    complete,
    fail,
    release,
    renew,
    start,
)
from evalpool_dataset.inquiry import Asked, ask
from evalpool_dataset.metrics import DatasetMetrics
from evalpool_dataset.parts import Evaluator, Kind, Parameters
from evalpool_dataset.run import MODEL_FAILURES, OPEN, Run, RunState
from evalpool_dataset.scoring import Metric
from evalpool_dataset.store import definitions, evaluations, runs
from evalpool_dataset.store.evaluations import Answer, Claim
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database
from evalpool_runtime.errors import reason_name, reasons
from evalpool_runtime.watch import Changes

GROUP_SECONDS = 0.2
IDLE_SECONDS = 5.0
LAPSED_A_SWEEP = 1000


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has taken up questions."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """A question has an answer.

    Attributes:
        id: The evaluation's number.
        prediction: From 1; 0 for none.
        answer: What the inference gave.
        provenance: What it came from.
        alike: All choices scored exactly alike.
        compared: The choices differ.
    """

    id: int
    prediction: int
    answer: Answer
    provenance: dict[str, Any]
    alike: bool = False
    compared: bool = False


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A question has no answer."""

    id: int
    reason: str
    reason_code: str
    retryable: bool


Outcome = Started | Answered | Unanswered


class Inference(Protocol):
    """Asks the herd."""

    def evaluate(
        self, evaluator: Evaluator, model_digest: str, asked: dict[int, Asked], reference: str
    ) -> AsyncIterator[Outcome]:
        """Yield what becomes of each question, by the evaluation's number."""
        ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """Leased questions of one run, ready to be asked."""

    run: Run
    evaluator: Evaluator
    model_digest: str
    claims: dict[int, Claim]
    asked: dict[int, Asked]
    reference: str


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
                pause = max((task.result() for task in done), default=0.0)
                held_back_until = max(held_back_until, loop.time() + pause)
                wait = held_back_until - loop.time()
                if wait <= 0:
                    await self._fill(under_way)
                    wait = IDLE_SECONDS
                await self._sleep(under_way, wait)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def expire(self) -> None:
        """Take back leases that have lapsed: what held them is gone."""
        now = self._clock.now()
        code = reason_name(reasons.ERROR_REASON_WORKER_LOST)

        def work(connection: Connection) -> bool:
            by_run: dict[str, list[int]] = {}
            for number, run_id in evaluations.lapsed(connection, now, LAPSED_A_SWEEP):
                by_run.setdefault(run_id, []).append(number)
            for run_id, ids in sorted(by_run.items()):
                run = runs.require_run(connection, run_id, lock=True)
                after = evaluations.expire_some(connection, ids, now, self._settings.policy, code)
                failed = sum(evaluation.state is State.FAILED for evaluation in after)
                run = replace(run, failed=run.failed + failed)
                runs.save_run(connection, runs.settle(connection, run, now))
            return bool(by_run)

        if await self._database.write(work):
            self._changes.notify()
            self.wake()

    async def _fill(self, under_way: set[asyncio.Task[float]]) -> None:
        """Begin chunks while there is room and something to do."""
        while len(under_way) < self._settings.concurrent_chunks:
            chunk = await self._database.write(self._claim)
            if chunk is None:
                return
            under_way.add(asyncio.create_task(self._evaluate(chunk)))

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
        pause = 0.0
        problem: CallError | None = None
        renewing = asyncio.create_task(self._keep_leases(chunk, unfinished, asyncio.current_task()))
        stream = self._inference.evaluate(
            chunk.evaluator, chunk.model_digest, chunk.asked, chunk.reference
        )
        try:
            async for group in _grouped(stream, GROUP_SECONDS):
                await self._commit(chunk, group)
                for outcome in group:
                    if not isinstance(outcome, Started):
                        unfinished.pop(outcome.id, None)
        except grpc.aio.AioRpcError as error:
            problem = CallError.of(error)
            pause = problem.retry_after or 1.0
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            if unfinished:
                await asyncio.shield(self._give_back(chunk, unfinished, problem))
        return pause

    async def _commit(self, chunk: Chunk, group: list[Outcome]) -> None:
        now = self._clock.now()

        def work(connection: Connection) -> None:
            run = runs.require_run(connection, chunk.run.id, lock=True)
            ids = [i for o in group for i in (o.ids if isinstance(o, Started) else (o.id,))]
            held = evaluations.lock(connection, sorted(set(ids)))
            for outcome in group:
                match outcome:
                    case Started():
                        run = self._note_start(connection, run, chunk, outcome, held)
                    case Answered():
                        run = self._count(connection, run, chunk, outcome, held)
                    case Unanswered():
                        run = self._count_failure(connection, run, chunk, outcome, held)
            runs.save_run(connection, runs.settle(connection, run, now))

        await self._database.write(work)
        self._changes.notify()
        self._metrics.outcome("answered", sum(isinstance(o, Answered) for o in group))
        self._metrics.outcome("unanswered", sum(isinstance(o, Unanswered) for o in group))

    def _note_start(
        self,
        connection: Connection,
        run: Run,
        chunk: Chunk,
        outcome: Started,
        held: dict[int, Any],
    ) -> Run:
        for number in outcome.ids:
            with suppress(NotHeld):
                held[number] = start(held[number], fence=chunk.claims[number].fence)
                evaluations.save(connection, number, held[number])
        if run.state is not RunState.QUEUED:
            return run
        return replace(run, state=RunState.RUNNING, start_time=run.start_time or self._clock.now())

    def _count(
        self,
        connection: Connection,
        run: Run,
        chunk: Chunk,
        outcome: Answered,
        held: dict[int, Any],
    ) -> Run:
        fence = chunk.claims[outcome.id].fence
        try:
            done = complete(held[outcome.id], fence=fence, prediction=outcome.prediction)
        except NotHeld:
            # Somebody else holds it by now, or a result has been counted: this one comes too late.
            return run
        held[outcome.id] = done
        evaluations.save(connection, outcome.id, done, answer=outcome.answer)
        right = chunk.asked[outcome.id].question.answer
        counts = dict(run.metric_counts)
        for name, place in (outcome.answer.predictions or {}).items():
            counts[name] = counts.get(name, 0) + (place == right)
        counts["alike"] = counts.get("alike", 0) + outcome.alike
        counts["compared"] = counts.get("compared", 0) + outcome.compared
        return replace(
            run,
            state=RunState.RUNNING if run.state in OPEN else run.state,
            start_time=run.start_time or self._clock.now(),
            done=run.done + 1,
            correct=run.correct + (outcome.prediction == right),
            metric_counts=counts,
            provenance=run.provenance or outcome.provenance,
        )

    def _count_failure(
        self,
        connection: Connection,
        run: Run,
        chunk: Chunk,
        outcome: Unanswered,
        held: dict[int, Any],
    ) -> Run:
        try:
            after = fail(
                held[outcome.id],
                fence=chunk.claims[outcome.id].fence,
                reason=outcome.reason,
                retryable=outcome.retryable,
                now=self._clock.now(),
                policy=self._settings.policy,
            )
        except NotHeld:
            return run
        held[outcome.id] = after
        evaluations.save(connection, outcome.id, after, reason_code=outcome.reason_code)
        if outcome.reason_code in MODEL_FAILURES and not outcome.retryable:
            return self._fail_run(connection, run, outcome.reason, outcome.reason_code, 1)
        return replace(run, failed=run.failed + (after.state is State.FAILED))

    def _fail_run(
        self, connection: Connection, run: Run, reason: str, code: str, more: int = 0
    ) -> Run:
        failed = evaluations.fail_open(connection, run.id, reason, code)
        return replace(
            run,
            state=RunState.FAILED,
            failed=run.failed + failed + more,
            reason=reason,
            reason_code=code,
            end_time=self._clock.now(),
        )

    async def _give_back(
        self, chunk: Chunk, unfinished: dict[int, Claim], problem: CallError | None
    ) -> None:
        """End what a call left unfinished: given back, tried again, or failed with the model."""
        now = self._clock.now()
        reason = problem.message if problem else "the evaluation was interrupted"
        code = problem.reason if problem else ""

        def work(connection: Connection) -> None:
            run = runs.require_run(connection, chunk.run.id, lock=True)
            if code in MODEL_FAILURES and run.state in OPEN:
                runs.save_run(connection, self._fail_run(connection, run, reason, code))
                return
            held = evaluations.lock(connection, sorted(unfinished))
            failed = 0
            for number, claimed in unfinished.items():
                evaluation = held[number]
                if not evaluation.is_held_by(claimed.fence):
                    continue
                if evaluation.started:
                    evaluation = fail(
                        evaluation,
                        fence=claimed.fence,
                        reason=reason,
                        retryable=True,
                        now=now,
                        policy=self._settings.policy,
                    )
                    failed += evaluation.state is State.FAILED
                else:
                    evaluation = release(evaluation, fence=claimed.fence)
                evaluations.save(connection, number, evaluation, reason_code=code)
            unfunded = code == reason_name(reasons.ERROR_REASON_HOLD_REFUSED)
            run = replace(run, failed=run.failed + failed)
            if unfunded:
                run = replace(run, state=RunState.UNFUNDED, reason=reason, reason_code=code)
            runs.save_run(connection, runs.settle(connection, run, now))

        if problem is not None:
            self._log.warning("a call to the herd ended early", code=problem.code.name, why=reason)
        await self._database.write(work)
        self._changes.notify()

    async def _keep_leases(
        self, chunk: Chunk, unfinished: dict[int, Claim], call: asyncio.Task[Any] | None
    ) -> None:
        """Renew the chunk's leases while its call is open; cancel the call when all are lost."""
        seconds = self._settings.lease.total_seconds() / 3
        while True:
            await asyncio.sleep(seconds)
            claims = dict(unfinished)
            if claims and not await self._renew(claims) and call is not None:
                self._log.warning("all leases of a chunk are lost", run=chunk.run.id)
                call.cancel()
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


async def _grouped(stream: AsyncIterator[Outcome], seconds: float) -> AsyncIterator[list[Outcome]]:
    """Yield what comes within a short time together, so that a commit serves many results."""
    queue: asyncio.Queue[Outcome | BaseException | None] = asyncio.Queue()

    async def pump() -> None:
        try:
            async for outcome in stream:
                queue.put_nowait(outcome)
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    pumping = asyncio.create_task(pump())
    try:
        ended = False
        while not ended:
            group: list[Outcome] = []
            event = await queue.get()
            deadline = asyncio.get_running_loop().time() + seconds
            while True:
                if event is None or isinstance(event, BaseException):
                    ended = True
                    break
                group.append(event)
                try:
                    async with asyncio.timeout_at(deadline):
                        event = await queue.get()
                except TimeoutError:
                    break
            if group:
                yield group
            if isinstance(event, BaseException):
                raise event
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)

"""One dispatch: what goes to the worker, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

import structlog
from grpc import aio

from evalpool.inference.v1 import inference_pb2
from evalpool_router.job import InferJob, Job, Message, ScoreJob, indices_of, is_plausible
from evalpool_router.metrics import RouterMetrics
from evalpool_router.scheduler import Dispatch, Effect, Scheduler
from evalpool_router.worker_link import (
    WorkerLink,
    as_a_refusal,
    as_an_error,
    as_the_requests_error,
    broke_off,
    is_busy,
    is_own_trouble,
    refuses_us,
)
from evalpool_runtime.clock import Clock
from evalpool_runtime.errors import DomainError

LATE = 2.0
"""Seconds after a deadline until a call to a worker ends by itself, should nobody have ended it."""


class Desk(Protocol):
    """Where a drive tells what happens."""

    scheduler: Scheduler

    def carry_out(self, effects: Iterable[Effect]) -> None:
        """Do what the scheduler has decided."""
        ...

    def tell(self, job: Job, message: Message, *, result: bool) -> None:
        """Send a message to the caller."""
        ...

    def tell_results(self, job: ScoreJob, results: list[inference_pb2.QuestionResult]) -> None:
        """Send results to the caller."""
        ...


class Drive:
    """Carries one dispatch out.

    Args:
        dispatch: What the scheduler decided.
        job: The request that it serves.
        link: The way to the worker.
        desk: Where to tell what happens.
        clock: Its `monotonic` is the scheduler's time.
        metrics: What is counted.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        job: Job,
        link: WorkerLink,
        desk: Desk,
        clock: Clock,
        metrics: RouterMetrics,
    ) -> None:
        self._dispatch = dispatch
        self._job = job
        self._link = link
        self._desk = desk
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Send the work to the worker and take in what comes, until its stream ends."""
        try:
            await self._carry_out()
        except asyncio.CancelledError:
            # Recalled, or the worker itself ended the stream as cancelled, which looks the same.
            self._lost(attempt=True, cause="lost")
            raise
        except Exception:
            # A slot must not stay taken because of a mistake of ours.
            self._log.exception("a dispatch failed, and not by the worker")
            self._lost(attempt=True, cause="lost")

    async def _carry_out(self) -> None:
        if not await self._link.reachable():
            self._lost(attempt=False, cause="unreachable")
            return
        self._desk.scheduler.accepted(self._dispatch.id, self._clock.monotonic())
        try:
            if isinstance(self._job, ScoreJob):
                await self._take_scores(self._job)
            elif isinstance(self._job, InferJob):
                await self._take_text(self._job)
        except aio.AioRpcError as error:
            self._log.info("a dispatch failed", code=error.code().name, details=error.details())
            self._failed(error)
        else:
            self._finished()

    async def _take_text(self, job: InferJob) -> None:
        call = self._link.stub.Infer(
            job.message(), timeout=self._timeout(), metadata=self._link.metadata(self._dispatch.id)
        )
        try:
            async for response in call:
                if not self._desk.scheduler.is_current(self._dispatch.id):
                    return
                response.reference = job.reference
                if response.HasField("complete"):
                    self._complete_text(job, response)
                elif response.HasField("chunk"):
                    self._desk.scheduler.sent(self._dispatch.id)
                    self._progressed()
                    self._desk.tell(job, response, result=True)
        finally:
            call.cancel()

    def _complete_text(
        self,
        job: InferJob,
        response: inference_pb2.InferResponse,
    ) -> None:
        complete = response.complete
        if not (self._is_mine(complete.provenance) and is_plausible(complete.usage)):
            # Without a proper end the dispatch counts as lost at this worker.
            self._discard(1)
            return
        self._desk.tell(job, response, result=True)
        tokens = complete.usage.computed_tokens
        _, effects = self._desk.scheduler.questions_finished(
            self._dispatch.id, self._dispatch.questions, self._clock.monotonic(), tokens=tokens
        )
        self._metrics.questions.inc()
        self._metrics.tokens.inc(tokens)
        self._desk.carry_out(effects)

    async def _take_scores(self, job: ScoreJob) -> None:
        call = self._link.stub.ScoreChoices(
            job.message(self._dispatch.questions),
            timeout=self._timeout(),
            metadata=self._link.metadata(self._dispatch.id),
        )
        indices = indices_of(job, self._dispatch.questions)
        try:
            async for response in call:
                if not self._desk.scheduler.is_current(self._dispatch.id):
                    return
                response.reference = job.reference
                match response.WhichOneof("event"):
                    case "results":
                        self._count_scores(job, response.results.results, indices)
                    case "started":
                        self._progressed()
                        # Whatever it calls them: the caller knows only what was sent.
                        response.started.ids[:] = indices
                        response.started.worker = self._link.address
                        self._desk.tell(job, response, result=False)
                    case "progress":
                        self._progressed()
                        response.progress.queue_position = self._desk.scheduler.position(job.id)
                        response.progress.reason_code = ""
                        self._desk.tell(job, response, result=False)
                    case _:
                        # After `complete` the stream ends by itself, with its status.
                        continue
        finally:
            call.cancel()

    def _count_scores(
        self,
        job: ScoreJob,
        results: Iterable[inference_pb2.QuestionResult],
        indices: Mapping[str, int],
    ) -> None:
        found: dict[int, inference_pb2.QuestionResult] = {}
        failed: dict[int, DomainError] = {}
        discarded = 0
        for result in results:
            index = indices.get(result.id)
            if (
                index is not None
                and index not in found
                and index not in failed
                and job.answers(index, result)
                and self._is_mine(result.provenance)
            ):
                if result.failure.retryable:
                    failed[index] = as_an_error(result.failure)
                else:
                    found[index] = result
            else:
                discarded += 1
        tokens = sum(result.usage.computed_tokens for result in found.values())
        counting, effects = self._desk.scheduler.questions_finished(
            self._dispatch.id, tuple(found), self._clock.monotonic(), tokens=tokens
        )
        discarded += len(found) - len(counting)
        if discarded:
            self._discard(discarded)
        if counting:
            self._metrics.questions.inc(len(counting))
            self._metrics.tokens.inc(tokens)
            self._desk.tell_results(job, [found[index] for index in counting])
        self._desk.carry_out(effects)
        if failed:
            self._metrics.retries.labels("trouble").inc()
            self._desk.carry_out(
                self._desk.scheduler.questions_failed(
                    self._dispatch.id, failed, self._clock.monotonic()
                )
            )

    # What came of it

    def _progressed(self) -> None:
        self._desk.scheduler.progressed(self._dispatch.id, self._clock.monotonic())

    def _finished(self) -> None:
        if self._desk.scheduler.outstanding(self._dispatch.id):
            self._metrics.retries.labels("undone").inc()
        effects = self._desk.scheduler.finished(self._dispatch.id, self._clock.monotonic())
        self._desk.carry_out(effects)

    def _lost(self, *, attempt: bool, cause: str, broken: bool = False) -> None:
        if self._desk.scheduler.is_current(self._dispatch.id):
            self._metrics.retries.labels(cause).inc()
            self._desk.carry_out(
                self._desk.scheduler.lost(
                    self._dispatch.id,
                    self._clock.monotonic(),
                    attempt=attempt,
                    broke_off=broken,
                )
            )

    def _failed(self, error: aio.AioRpcError) -> None:
        now = self._clock.monotonic()
        if is_busy(error):
            self._metrics.retries.labels("busy").inc()
            self._desk.carry_out(self._desk.scheduler.refused(self._dispatch.id, now))
        elif refuses_us(error):
            self._log.warning(
                "a worker refuses work from this router",
                code=error.code().name,
                details=error.details(),
            )
            self._failed_with(as_a_refusal(error, self._link.address), now)
        elif (passed_on := as_the_requests_error(error)) is not None:
            self._failed_with(passed_on, now)
        else:
            self._lost(attempt=True, cause="lost", broken=broke_off(error))

    def _failed_with(self, error: DomainError, now: float) -> None:
        blamed = is_own_trouble(error)
        if blamed:
            self._metrics.retries.labels("trouble").inc()
        self._desk.carry_out(
            self._desk.scheduler.failed(self._dispatch.id, error, now, blamed=blamed)
        )

    @property
    def _log(self) -> structlog.stdlib.BoundLogger:
        # Few dispatches have something to tell.
        bound: structlog.stdlib.BoundLogger = structlog.get_logger("evalpool.router.drive").bind(
            worker=self._link.address, dispatch=self._dispatch.id
        )
        return bound

    def _discard(self, count: int) -> None:
        self._metrics.discarded.inc(count)
        self._log.warning("results were discarded", results=count)

    def _timeout(self) -> float:
        return max(self._job.deadline - self._clock.monotonic(), 0.0) + LATE

    def _is_mine(self, provenance: inference_pb2.Provenance) -> bool:
        """Whether a result is of this model, engine, worker, generation and dispatch."""
        return (
            provenance.model_digest == self._job.model.digest
            and provenance.engine_build == self._link.engine_build
            and provenance.worker == self._link.address
            and provenance.generation == self._dispatch.generation
            and provenance.dispatch == self._dispatch.id
        )

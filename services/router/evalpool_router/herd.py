"""The herd: carries out what the scheduler decides, over gRPC, and tells it what comes of it.

Everything here runs on one event loop, and every call of the scheduler is one step on it, so that
the scheduler has a single writer.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from fractions import Fraction
from typing import TypeVar

from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool_router.drive import Drive
from evalpool_router.job import Ended, InferJob, Job, Message, ScoreJob
from evalpool_router.metrics import RouterMetrics
from evalpool_router.scheduler import (
    Dispatch,
    Effect,
    End,
    FailQuestions,
    Kind,
    Recall,
    Registration,
    Request,
    Scheduler,
)
from evalpool_router.worker_link import WorkerLink
from evalpool_runtime.clock import Clock
from evalpool_runtime.errors import DomainError

LONGEST_TICK = 0.5
SHORTEST_TICK = 0.005

J = TypeVar("J", bound=Job)


class Herd:
    """The workers and the requests that they work on.

    Args:
        scheduler: Decides.
        clock: Its `monotonic` is the scheduler's time.
        identity: The router's key, which signs calls to workers.
        metrics: What is counted.
        last_multiplier: What is kept of it, until a request is dispatched.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        identity: Identity,
        metrics: RouterMetrics,
        last_multiplier: Fraction,
    ) -> None:
        self.scheduler = scheduler
        self._clock = clock
        self._identity = identity
        self._metrics = metrics
        self._numbers = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._links: dict[str, WorkerLink] = {}
        self._driving: dict[int, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._next_tick = 0.0
        self._stopped: DomainError | None = None
        self._last_multiplier = last_multiplier

    @property
    def last_multiplier(self) -> Fraction:
        """The multiplier of the request that was dispatched last."""
        return self._last_multiplier

    # Callers

    def next_number(self) -> int:
        """A number for a new request."""
        return next(self._numbers)

    def submit(self, job: Job, request: Request) -> None:
        """Take a request in; what becomes of it comes to the job's inbox.

        Raises:
            ResourceExhausted: The queue is full.
            Unavailable: The router is stopping.
        """
        if self._stopped is not None:
            raise self._stopped
        self._jobs[job.id] = job
        self._metrics.requests.labels(job.method).inc()
        self._metrics.active.labels(job.method).inc()
        try:
            effects = self.scheduler.submit(request, self._clock.monotonic())
        except DomainError as error:
            self._close(job, error)
            raise
        self.carry_out(effects)

    async def infer(
        self, job: InferJob, progress_seconds: float
    ) -> AsyncGenerator[inference_pb2.InferResponse, None]:
        """What comes of a submitted prompt; leaving the iteration cancels it.

        Args:
            job: The submitted prompt.
            progress_seconds: After how long to say what keeps it from a worker, again and again.

        Raises:
            DomainError: It could not be answered.
        """
        try:
            item: Message | Ended | None = None
            while item is None:
                try:
                    async with asyncio.timeout(progress_seconds):
                        item = await job.inbox.get()
                except TimeoutError:
                    if self.scheduler.lack(job.id):
                        yield job.standstill(self.scheduler.stage(job.id))
            while True:
                if isinstance(item, inference_pb2.InferResponse):
                    yield item
                elif isinstance(item, Ended):
                    if item.error is not None:
                        raise item.error
                    return
                item = await job.inbox.get()
        finally:
            self.abandon(job)

    async def score(
        self, job: ScoreJob, progress_seconds: float
    ) -> AsyncGenerator[inference_pb2.ScoreChoicesResponse, None]:
        """What comes of submitted questions; leaving the iteration cancels them.

        Args:
            job: The submitted questions.
            progress_seconds: How long to be silent at most.

        Raises:
            DomainError: They could not be scored.
        """
        try:
            if job.first_dispatch is None:
                yield self._progress(job)
            while True:
                try:
                    async with asyncio.timeout(progress_seconds):
                        item = await job.inbox.get()
                except TimeoutError:
                    yield self._progress(job)
                    continue
                if isinstance(item, inference_pb2.ScoreChoicesResponse):
                    yield item
                elif isinstance(item, Ended):
                    if item.error is not None:
                        raise item.error
                    yield job.completion()
                    return
        finally:
            self.abandon(job)

    def abandon(self, job: Job) -> None:
        """The caller has gone, or has had everything; harmless more than once."""
        if job.id in self._jobs:
            self._close(job, None)
            self.carry_out(self.scheduler.cancel(job.id, self._clock.monotonic()))

    # Workers

    def register(self, registration: Registration, endpoint: str, engine_build: str) -> None:
        """Enter a worker; what it did under an older generation no longer counts.

        Args:
            registration: What the scheduler is to know of it.
            endpoint: Where it can be reached.
            engine_build: What its results must name.
        """
        link = self._links.get(registration.address)
        same = link is not None and (
            (link.generation, link.endpoint) == (registration.generation, endpoint)
        )
        if not same:
            self._drop_link(registration.address)
            self._links[registration.address] = WorkerLink(
                endpoint,
                registration.address,
                registration.generation,
                engine_build,
                self._identity,
            )
            self._metrics.registrations.inc()
        self.carry_out(self.scheduler.worker_registered(registration, self._clock.monotonic()))

    def heartbeat(
        self,
        address: str,
        generation: int,
        *,
        models: Iterable[str],
        computed_tokens: int,
        leaving: bool,
    ) -> None:
        """Keep a worker's lease.

        Raises:
            Aborted: The worker has no lease, or a newer one.
        """
        self.carry_out(
            self.scheduler.heartbeat(
                address,
                generation,
                self._clock.monotonic(),
                models=models,
                computed_tokens=computed_tokens,
                leaving=leaving,
            )
        )

    def unregister(self, address: str, generation: int) -> None:
        """Take out a worker; nothing where it is out already."""
        worker = self.scheduler.worker(address, self._clock.monotonic())
        if worker is not None and worker.generation == generation:
            self.carry_out(self.scheduler.worker_left(address, generation, self._clock.monotonic()))

    def drain(self, address: str, draining: bool) -> None:
        """Give a worker nothing new, or let it take work again."""
        self.carry_out(self.scheduler.drain(address, draining, self._clock.monotonic()))

    def assign(self, address: str, kinds: frozenset[Kind]) -> None:
        """Give a worker these kinds of work from now on, and no others; none: take it out."""
        self.carry_out(self.scheduler.assign(address, kinds, self._clock.monotonic()))

    # Time and end

    async def keep_time(self) -> None:
        """Let time pass for the scheduler, for ever."""
        observed = -LONGEST_TICK
        while True:
            now = self._clock.monotonic()
            self.carry_out(self.scheduler.time_passed(now))
            self._drop_links_of_the_lost()
            if now - observed >= LONGEST_TICK:
                # Gauges look at every worker, which is too much for every tick.
                self._metrics.observe(self.scheduler, now)
                observed = now
            self._wake.clear()
            due = self.scheduler.next_time()
            wait = LONGEST_TICK if due is None else min(max(due - now, SHORTEST_TICK), LONGEST_TICK)
            self._next_tick = now + wait
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    def stop(self, error: DomainError) -> None:
        """End every request but answers under way, and take nothing new."""
        self._stopped = error
        for job in list(self._jobs.values()):
            if isinstance(job, ScoreJob) or job.first_result is None:
                self._end_early(job, error)

    def stop_now(self, error: DomainError) -> None:
        """End every request."""
        self._stopped = error
        for job in list(self._jobs.values()):
            self._end_early(job, error)

    async def close(self) -> None:
        """Forget every request, and cut the ways to all workers."""
        for job in list(self._jobs.values()):
            self.abandon(job)
        for task in self._driving.values():
            task.cancel()
        await asyncio.gather(*self._driving.values(), return_exceptions=True)
        for address in list(self._links):
            self._drop_link(address)
        await asyncio.gather(*self._closing, return_exceptions=True)

    # Effects

    def carry_out(self, effects: Iterable[Effect]) -> None:
        """Do what the scheduler has decided."""
        for effect in effects:
            match effect:
                case Dispatch():
                    self._begin(effect)
                case Recall():
                    task = self._driving.get(effect.dispatch)
                    if task is not None:
                        task.cancel()
                case FailQuestions():
                    self._fail_questions(effect)
                case End():
                    job = self._jobs.get(effect.request)
                    if job is not None:
                        self._close(job, effect.error)
        due = self.scheduler.next_time()
        if due is not None and due < self._next_tick:
            self._wake.set()

    def _begin(self, dispatch: Dispatch) -> None:
        job, link = self._jobs[dispatch.request], self._links[dispatch.worker]
        now = self._clock.monotonic()
        self._last_multiplier = job.multiplier
        if job.first_dispatch is None:
            job.first_dispatch = now
            self._metrics.stages.labels(job.method, "queue").observe(now - job.begun)
        self._metrics.selections.labels(job.kind.name.lower()).inc()
        task = asyncio.create_task(
            Drive(dispatch, job, link, self, self._clock, self._metrics).run(),
            name=f"dispatch {dispatch.id}",
        )
        self._driving[dispatch.id] = task
        task.add_done_callback(lambda _: self._driving.pop(dispatch.id, None))

    def _fail_questions(self, effect: FailQuestions) -> None:
        job = self._jobs.get(effect.request)
        if isinstance(job, ScoreJob):
            failure = inference_pb2.QuestionFailure(
                reason_code=effect.error.reason_name, message=effect.error.message, retryable=True
            )
            results = [
                inference_pb2.QuestionResult(id=job.questions[index].id, failure=failure)
                for index in effect.questions
            ]
            self.tell_results(job, results)

    def _close(self, job: Job, error: DomainError | None) -> None:
        """Let a job end: the one place, so that counts go back whatever happens."""
        del self._jobs[job.id]
        self._metrics.active.labels(job.method).dec()
        seconds = self._clock.monotonic() - job.begun
        self._metrics.stages.labels(job.method, "total").observe(seconds)
        if error is not None:
            self._metrics.errors.labels(job.method, error.reason_name).inc()
        job.inbox.put_nowait(Ended(error))

    def _end_early(self, job: Job, error: DomainError) -> None:
        self._close(job, error)
        self.carry_out(self.scheduler.cancel(job.id, self._clock.monotonic()))

    # What drives ask for

    def tell(self, job: Job, message: Message, *, result: bool) -> None:
        """Put a message into a job's inbox, unless it has ended."""
        if job.id not in self._jobs:
            return
        if result and job.first_result is None and job.first_dispatch is not None:
            job.first_result = self._clock.monotonic()
            self._metrics.stages.labels(job.method, "first_result").observe(
                job.first_result - job.first_dispatch
            )
        job.inbox.put_nowait(message)

    def tell_results(self, job: ScoreJob, results: list[inference_pb2.QuestionResult]) -> None:
        """Count results and put them into a job's inbox."""
        for result in results:
            job.count(result)
        self.tell(
            job,
            inference_pb2.ScoreChoicesResponse(
                reference=job.reference, results=inference_pb2.QuestionResults(results=results)
            ),
            result=True,
        )

    def _progress(self, job: ScoreJob) -> inference_pb2.ScoreChoicesResponse:
        return job.progress(
            self.scheduler.position(job.id),
            self.scheduler.stage(job.id),
            lacking=bool(self.scheduler.lack(job.id)),
        )

    # Links

    def _drop_link(self, address: str) -> None:
        link = self._links.pop(address, None)
        if link is not None:
            task = asyncio.create_task(link.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _drop_links_of_the_lost(self) -> None:
        for address in list(self._links):
            if not self.scheduler.has_worker(address):
                self._drop_link(address)

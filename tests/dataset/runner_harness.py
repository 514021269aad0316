"""Runners on a database, with a herd that answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from evalpool_dataset.evaluation import Policy
from evalpool_dataset.inquiry import Asked
from evalpool_dataset.metrics import DatasetMetrics
from evalpool_dataset.outcome import Answer, Answered, Outcome, Started
from evalpool_dataset.parts import Evaluator, Kind, installed_kinds
from evalpool_dataset.run import Run, RunState
from evalpool_dataset.runner import Runner, RunnerSettings
from evalpool_dataset.store import evaluations, runs
from evalpool_runtime.clock import ManualClock
from evalpool_runtime.database import Database
from evalpool_runtime.watch import Changes
from tests.dataset.stored_run import DIGEST

START = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=60)

Behaviour = Callable[[dict[int, Asked]], AsyncIterator[Outcome]]


def answered(number: int, asked: Asked, prediction: int | None = None) -> Answered:
    right = asked.question.answer
    prediction = right if prediction is None else prediction
    answer = Answer(
        prompt="p",
        sum_logprobs=(-1.0, -2.0, -3.0),
        predictions={"acc": prediction},
        reply=None,
        extracted=None,
        judging=None,
        start_time=START,
        end_time=START,
        reference="r",
        worker="w",
        engine_build="b",
    )
    return Answered(
        id=number,
        prediction=prediction,
        points=int(prediction == right),
        right={"acc": prediction == right},
        answer=answer,
        provenance={"engine": "double"},
        compared=True,
    )


async def all_right(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
    yield Started(tuple(asked))
    for number, question in asked.items():
        # A turn of the loop a question, so that others have theirs.
        await asyncio.sleep(0)
        yield answered(number, question)


class Herd:
    """Behaves as told, call by call; after that answers rightly."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours = list(behaviours)
        self.asked: list[int] = []
        self.calls = 0

    async def evaluate(
        self, evaluator: Evaluator, subject: str, asked: dict[int, Asked], reference: str
    ) -> AsyncIterator[Outcome]:
        assert (evaluator, subject) == (Evaluator.LOGLIKELIHOOD, DIGEST)
        self.calls += 1
        self.asked += asked
        behaviour = self.behaviours.pop(0) if self.behaviours else all_right
        async for outcome in behaviour(asked):
            yield outcome


class Running:
    """Runners on one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock(START)
        self.changes = Changes()
        self.stopping = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def runner(
        self,
        herd: Herd,
        *,
        questions: int = 4,
        chunks: int = 2,
        attempts: int = 3,
        failed_starts: int = 20,
        lease: timedelta = LEASE,
        kinds: Mapping[str, Kind] | None = None,
    ) -> Runner:
        return Runner(
            self.database,
            herd,
            installed_kinds() if kinds is None else kinds,
            self.changes,
            self.clock,
            RunnerSettings(questions, chunks, lease, Policy(attempts, failed_starts)),
            self.stopping,
            DatasetMetrics(CollectorRegistry()),
        )

    def begin(self, runner: Runner) -> None:
        self.tasks.append(asyncio.create_task(runner.drain()))

    async def until(self, condition: Callable[[Run], bool]) -> Run:
        while True:
            seen = self.changes.version
            run = await self.run()
            if condition(run):
                return run
            await self.changes.wait(seen, 30)

    async def until_ended(self, runner: Runner) -> Run:
        """Let every pause pass at once, until the run has ended."""
        while True:
            seen = self.changes.version
            run = await self.run()
            if ended(run):
                return run
            self.clock.advance(timedelta(minutes=5))
            runner.wake()
            await self.changes.wait(seen, 1)

    async def run(self, run: str = "run") -> Run:
        return await self.database.read(lambda c: runs.require_run(c, run))

    async def leased_until(self) -> datetime | None:
        """When the first of the run's leases lapses."""

        def work(connection: Connection) -> datetime | None:
            found = evaluations.list_results(
                connection, runs.require_run(connection, "run"), 0, 1000
            )
            return min(r.evaluation.until for r in found if r.evaluation.until is not None)

        return await self.database.read(work)

    async def states(self) -> list[tuple[str, int]]:
        def work(connection: Connection) -> list[tuple[str, int]]:
            found = evaluations.list_results(
                connection, runs.require_run(connection, "run"), 0, 1000
            )
            return [(r.evaluation.state.value, r.evaluation.attempts) for r in found]

        return await self.database.read(work)


def ended(run: Run) -> bool:
    return run.state in {RunState.COMPLETE, RunState.FAILED, RunState.UNFUNDED}

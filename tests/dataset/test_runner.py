"""The runner on both databases, with a herd that answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from evalpool_dataset.evaluation import Policy
from evalpool_dataset.inquiry import Asked
from evalpool_dataset.metrics import DatasetMetrics
from evalpool_dataset.outcome import Answered, Outcome, Started, Unanswered, UnforeseenAnswer
from evalpool_dataset.parts import Evaluator, installed_kinds
from evalpool_dataset.run import Run, RunState
from evalpool_dataset.runner import Runner, RunnerSettings
from evalpool_dataset.store import evaluations, runs
from evalpool_dataset.store.evaluations import Answer
from evalpool_runtime.clock import ManualClock
from evalpool_runtime.database import Database
from evalpool_runtime.watch import Changes
from tests.conftest import OpenDatabase
from tests.dataset.stored_run import DIGEST, add_run

START = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=60)

Behaviour = Callable[[dict[int, Asked]], AsyncIterator[Outcome]]


def answered(number: int, asked: Asked, prediction: int | None = None) -> Answered:
    answer = Answer("p", (-1.0, -2.0, -3.0), {"acc": 1}, None, START, START, "r", "w", "b")
    right = asked.question.answer if prediction is None else prediction
    return Answered(number, right, answer, {"engine": "double"}, compared=True)


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
        self, evaluator: Evaluator, model_digest: str, asked: dict[int, Asked], reference: str
    ) -> AsyncIterator[Outcome]:
        assert (evaluator, model_digest) == (Evaluator.LOGLIKELIHOOD, DIGEST)
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
        self, herd: Herd, *, questions: int = 4, attempts: int = 3, lease: timedelta = LEASE
    ) -> Runner:
        return Runner(
            self.database,
            herd,
            dict(installed_kinds()),
            self.changes,
            self.clock,
            RunnerSettings(questions, 2, lease, Policy(attempts=attempts)),
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

    async def run(self) -> Run:
        return await self.database.read(lambda c: runs.require_run(c, "run"))

    async def states(self) -> list[tuple[str, int]]:
        def work(connection: Connection) -> list[tuple[str, int]]:
            found = evaluations.list_results(connection, "run", 0, 1000)
            return [(r.evaluation.state.value, r.evaluation.attempts) for r in found]

        return await self.database.read(work)


@pytest.fixture
async def running(database: OpenDatabase) -> AsyncIterator[Running]:
    made = Running(await database("evalpool_dataset.migrations"))
    await made.database.write(lambda c: add_run(c, questions=20))
    yield made
    made.stopping.set()
    await asyncio.gather(*made.tasks)


def ended(run: Run) -> bool:
    return run.state in {RunState.COMPLETE, RunState.FAILED, RunState.UNFUNDED}


def call_error(code: grpc.StatusCode, details: str = "broken") -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), details=details)


async def test_two_runners_on_one_database_never_evaluate_a_question_twice(
    running: Running,
) -> None:
    herds = [Herd(), Herd(), Herd()]
    for herd in herds:
        running.begin(running.runner(herd, questions=2))

    run = await running.until(ended)

    asked = [number for herd in herds for number in herd.asked]
    assert len(asked) == len(set(asked)) == 20
    assert (run.state, run.done, run.correct) == (RunState.COMPLETE, 20, 20)


async def test_a_lapsed_lease_is_taken_back_and_the_late_result_does_not_count(
    running: Running,
) -> None:
    go_on = asyncio.Event()
    held = asyncio.Event()

    async def late(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        yield Started(tuple(asked))
        held.set()
        await go_on.wait()
        for number, question in asked.items():
            yield answered(number, question, prediction=3)

    slow = running.runner(Herd(late), questions=20)
    running.begin(slow)
    await held.wait()
    await running.until(lambda run: run.state is RunState.RUNNING)
    running.clock.advance(LEASE + timedelta(seconds=1))
    other = running.runner(Herd(), questions=20)
    await other.expire()
    assert set(await running.states()) == {("pending", 1)}
    running.clock.advance(timedelta(seconds=10))
    running.begin(other)

    run = await running.until(ended)
    go_on.set()

    assert (run.state, run.done, run.correct) == (RunState.COMPLETE, 20, 20)
    running.stopping.set()
    await asyncio.gather(*running.tasks)
    after = await running.run()
    assert (after.done, after.correct) == (20, 20)
    assert set(await running.states()) == {("done", 2)}


async def test_a_lease_that_has_not_lapsed_is_left_alone(running: Running) -> None:
    await running.database.write(
        lambda c: evaluations.claim_some(c, "run", holder="h", now=START, lease=LEASE, limit=5)
    )
    running.clock.advance(LEASE - timedelta(seconds=1))

    await running.runner(Herd()).expire()

    assert [state for state, _ in await running.states()][:5] == ["leased"] * 5


async def test_a_chunk_whose_leases_are_lost_ends_and_the_drain_goes_on(running: Running) -> None:
    cancelled = asyncio.Event()

    async def never(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        yield Started(tuple(asked))
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    herd = Herd(never)
    running.begin(running.runner(herd, questions=20, lease=timedelta(milliseconds=300)))
    await running.until(lambda run: run.state is RunState.RUNNING)
    # Another replica takes the leases back, though this one renews them.
    later = running.clock.now() + timedelta(hours=1)

    def take(connection: Connection) -> None:
        ids = [row for row, _ in evaluations.lapsed(connection, later, 100)]
        evaluations.expire_some(connection, ids, later, Policy(), "WORKER_LOST")

    await running.database.write(take)
    await cancelled.wait()
    running.clock.advance(timedelta(hours=2))
    running.changes.notify()

    run = await running.until(ended)
    assert (run.state, run.done) == (RunState.COMPLETE, 20)


async def test_a_chunk_that_breaks_leaves_the_others_alone(running: Running) -> None:
    async def broken(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        raise ArithmeticError("a bug")
        yield

    herd = Herd(broken)
    running.begin(running.runner(herd, questions=5))

    run = await running.until(ended)

    assert (run.state, run.done) == (RunState.COMPLETE, 20)
    assert herd.calls == 5


async def test_answers_that_were_not_asked_for_end_the_call(running: Running) -> None:
    async def strange(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        number = min(asked)
        yield answered(number, asked[number])
        raise UnforeseenAnswer("what is 99?")

    herd = Herd(strange)
    running.begin(running.runner(herd, questions=20))

    run = await running.until(ended)

    assert (run.state, run.done) == (RunState.COMPLETE, 20)
    assert len(herd.asked) == 39


async def test_a_call_that_ends_without_answers_is_made_again(running: Running) -> None:
    async def silent(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        return
        yield

    herd = Herd(silent)
    running.begin(running.runner(herd, questions=20))

    run = await running.until(ended)

    assert run.state is RunState.COMPLETE
    assert set(await running.states()) == {("done", 1)}


async def test_a_call_that_can_never_succeed_fails_its_questions(running: Running) -> None:
    async def refused(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        raise call_error(grpc.StatusCode.INVALID_ARGUMENT, "no such thing")
        yield

    running.begin(running.runner(Herd(refused), questions=20))

    run = await running.until(ended)

    assert (run.state, run.failed, run.done) == (RunState.FAILED, 20, 0)
    assert "no such thing" in run.reason


async def test_a_question_fails_after_its_last_attempt(running: Running) -> None:
    async def breaks(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        yield Started(tuple(asked))
        raise call_error(grpc.StatusCode.UNAVAILABLE)

    running.begin(running.runner(Herd(breaks), questions=20, attempts=1))

    run = await running.until(ended)

    assert (run.state, run.failed, run.correct) == (RunState.FAILED, 20, 0)
    assert set(await running.states()) == {("failed", 1)}


async def test_a_worker_that_dies_before_it_says_that_it_started_costs_an_attempt(
    running: Running,
) -> None:
    async def lost(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        for number in asked:
            yield Unanswered(number, "the worker was lost", "WORKER_LOST", retryable=True)

    running.begin(running.runner(Herd(lost), questions=20, attempts=1))

    run = await running.until(ended)

    assert (run.state, run.failed, run.correct) == (RunState.FAILED, 20, 0)
    assert set(await running.states()) == {("failed", 1)}


async def test_a_models_failure_among_other_outcomes_counts_each_question_once(
    running: Running,
) -> None:
    async def mixed(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        first, second, third, fourth, *_ = asked
        yield answered(first, asked[first])
        yield Unanswered(second, "no such file", "MODEL_FETCH_FAILED", retryable=False)
        yield Unanswered(third, "no such file", "MODEL_FETCH_FAILED", retryable=False)
        yield answered(fourth, asked[fourth])

    running.begin(running.runner(Herd(mixed), questions=20))

    run = await running.until(ended)

    assert (run.state, run.done, run.failed) == (RunState.FAILED, 1, 19)
    assert (run.reason, run.reason_code) == ("no such file", "MODEL_FETCH_FAILED")


async def test_a_stop_gives_back_what_no_worker_had_begun(running: Running) -> None:
    waiting = asyncio.Event()

    async def some(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        first, second, *_ = asked
        yield Started((first, second))
        yield answered(first, asked[first])
        waiting.set()
        await asyncio.Event().wait()

    running.begin(running.runner(Herd(some), questions=20))
    await waiting.wait()
    await running.until(lambda run: run.done == 1)
    running.stopping.set()
    await asyncio.gather(*running.tasks)

    states = await running.states()
    assert states[:2] == [("done", 1), ("pending", 1)]
    assert set(states[2:]) == {("pending", 0)}

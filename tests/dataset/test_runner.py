"""The runner on both databases, with a herd that answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from evalpool_dataset.evaluation import Policy
from evalpool_dataset.inquiry import Asked
from evalpool_dataset.metrics import DatasetMetrics
from evalpool_dataset.outcome import Answer, Answered, Outcome, Started, Unanswered
from evalpool_dataset.parts import Evaluator, Kind, installed_kinds
from evalpool_dataset.problem import CallEnded, Problem
from evalpool_dataset.run import Run, RunState
from evalpool_dataset.runner import Runner, RunnerSettings
from evalpool_dataset.store import evaluations, runs
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
        self,
        herd: Herd,
        *,
        questions: int = 4,
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
            RunnerSettings(questions, 2, lease, Policy(attempts, failed_starts)),
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


def call_ends(reason: str, code: str = "", *, started: bool = False, **fields: Any) -> Behaviour:
    """A call that ends early, before or after a worker began."""

    async def ends(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        if started:
            yield Started(tuple(asked))
        raise CallEnded(Problem(reason, code, **fields))

    return ends


def unanswered(reason: str, code: str, **fields: Any) -> Behaviour:
    """Every question fails by itself, before a worker said that it began."""

    async def fails(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        for number in asked:
            yield Unanswered(number, Problem(reason, code, **fields))

    return fails


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
    runner = running.runner(herd, questions=5)
    running.begin(runner)

    await running.until(lambda run: run.done == 15)
    run = await running.until_ended(runner)

    assert (run.state, run.done) == (RunState.COMPLETE, 20)
    assert herd.calls == 5


async def test_an_answer_that_was_not_asked_for_ends_the_call_and_the_others_are_asked_again(
    running: Running,
) -> None:
    async def strange(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        number = min(asked)
        yield answered(number, asked[number])
        raise CallEnded(Problem("what is 99?", "ENGINE_FAILED"))

    herd = Herd(strange)
    running.begin(running.runner(herd, questions=20))

    run = await running.until(ended)

    # They only stood by, so there was no pause.
    assert (run.state, run.done) == (RunState.COMPLETE, 20)
    assert len(herd.asked) == 39


async def test_a_call_that_ends_without_answers_is_made_again_after_a_pause(
    running: Running,
) -> None:
    async def silent(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        return
        yield

    runner = running.runner(Herd(silent), questions=20)
    running.begin(runner)

    run = await running.until_ended(runner)

    assert run.state is RunState.COMPLETE
    assert set(await running.states()) == {("done", 1)}


@pytest.mark.parametrize(
    "behaviour",
    [
        call_ends("the engine failed", "ENGINE_FAILED"),
        call_ends("a worker was lost", "WORKER_LOST"),
        call_ends("an error with the id 7", "INTERNAL"),
        call_ends("not admitted", "NOT_ALLOWED"),
        call_ends("the call broke off"),
        unanswered("the engine is not ready", "LEASE_LOST"),
    ],
)
async def test_what_fails_again_and_again_before_a_worker_starts_ends_with_its_reason(
    running: Running, behaviour: Behaviour
) -> None:
    herd = Herd(*[behaviour] * 3)
    runner = running.runner(herd, questions=20, failed_starts=3)
    running.begin(runner)

    run = await running.until_ended(runner)

    assert (run.state, run.failed, run.done) == (RunState.FAILED, 20, 0)
    assert run.reason_code == "EVALUATION_FAILED"
    assert run.reason.startswith("20 of 20 questions could not be evaluated; the first because: ")
    assert set(await running.states()) == {("failed", 0)}
    assert herd.calls == 3


async def test_a_fault_of_the_service_itself_is_bounded_too(running: Running) -> None:
    async def broken(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        raise ArithmeticError("a bug")
        yield

    runner = running.runner(Herd(*[broken] * 2), questions=20, failed_starts=2)
    running.begin(runner)

    run = await running.until_ended(runner)

    assert (run.state, run.failed) == (RunState.FAILED, 20)
    assert "a fault of the dataset service" in run.reason


@pytest.mark.parametrize("code", ["QUEUE_FULL", "WORKER_BUSY", "NO_WORKER", "UNAVAILABLE"])
async def test_waiting_for_the_herd_costs_nothing_however_often_and_shows_its_reason(
    running: Running, code: str
) -> None:
    herd = Herd(*[call_ends("the herd is full", code)] * 8)
    runner = running.runner(herd, questions=20, attempts=1, failed_starts=1)
    running.begin(runner)

    waiting = await running.until(lambda run: bool(run.reason))
    run = await running.until_ended(runner)

    assert (waiting.state, waiting.reason, waiting.reason_code) == (
        RunState.QUEUED,
        "the herd is full",
        code,
    )
    assert (run.state, run.done, run.reason, run.reason_code) == (RunState.COMPLETE, 20, "", "")
    assert herd.calls == 9
    assert set(await running.states()) == {("done", 1)}


async def test_while_the_herd_sends_work_away_nothing_new_is_begun(running: Running) -> None:
    times: list[float] = []

    def noting(behaviour: Behaviour) -> Behaviour:
        def noted(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
            times.append(running.clock.monotonic())
            return behaviour(asked)

        return noted

    full = call_ends("the herd is full", "QUEUE_FULL", retry_after=20.0)
    runner = running.runner(Herd(noting(full), noting(all_right)), questions=20)
    running.begin(runner)

    await running.until(lambda run: bool(run.reason))
    while len(times) < 2:
        running.clock.advance(timedelta(seconds=1))
        runner.wake()
        await running.changes.wait(running.changes.version, 0.01)

    assert times[1] - times[0] >= 20
    assert (await running.until(ended)).state is RunState.COMPLETE


async def test_a_call_that_can_never_succeed_fails_its_questions(running: Running) -> None:
    refused = call_ends("no such thing", "INVALID_FIELD", retryable=False)
    running.begin(running.runner(Herd(refused), questions=20))

    run = await running.until(ended)

    assert (run.state, run.failed, run.done) == (RunState.FAILED, 20, 0)
    assert "no such thing" in run.reason


async def test_a_question_fails_after_its_last_attempt(running: Running) -> None:
    breaks = call_ends("broken", "UNAVAILABLE", started=True)
    running.begin(running.runner(Herd(breaks), questions=20, attempts=1))

    run = await running.until(ended)

    assert (run.state, run.failed, run.correct) == (RunState.FAILED, 20, 0)
    assert set(await running.states()) == {("failed", 1)}


@pytest.mark.parametrize("code", ["WORKER_LOST", "ENGINE_FAILED"])
async def test_a_worker_that_dies_before_it_says_that_it_started_costs_an_attempt(
    running: Running, code: str
) -> None:
    herd = Herd(unanswered("the worker died", code))
    running.begin(running.runner(herd, questions=20, attempts=1))

    run = await running.until(ended)

    assert (run.state, run.failed, run.correct) == (RunState.FAILED, 20, 0)
    assert set(await running.states()) == {("failed", 1)}


async def test_a_run_whose_kind_is_gone_fails_and_the_others_go_on(running: Running) -> None:
    await running.database.write(
        lambda c: add_run(c, questions=3, run="other", dataset="e", kind="multiple_choice")
    )
    kinds = {name: kind for name, kind in installed_kinds().items() if name != "siqa"}
    running.begin(running.runner(Herd(), kinds=kinds))

    gone = await running.until(ended)

    assert (gone.state, gone.failed, gone.reason_code) == (RunState.FAILED, 20, "UNAVAILABLE")
    assert 'the kind "siqa"' in gone.reason
    while not ended(other := await running.run("other")):
        await running.changes.wait(running.changes.version, 30)
    assert (other.state, other.done) == (RunState.COMPLETE, 3)


async def test_a_models_failure_among_other_outcomes_counts_each_question_once(
    running: Running,
) -> None:
    missing = Problem("no such file", "MODEL_FETCH_FAILED", retryable=False)

    async def mixed(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        first, second, third, fourth, *_ = asked
        yield answered(first, asked[first])
        yield Unanswered(second, missing)
        yield Unanswered(third, missing)
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

"""What the runner makes of calls that fail, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from evalpool_dataset.inquiry import Asked
from evalpool_dataset.outcome import Outcome, Started, Unanswered, Waiting
from evalpool_dataset.problem import CallEnded, Problem
from evalpool_dataset.run import RunState
from tests.dataset.runner_harness import (
    Behaviour,
    Herd,
    Running,
    all_right,
    answered,
    ended,
)


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


def waits_and_ends(reason: str, code: str) -> Behaviour:
    """A call that says that it waits, and ends early for that."""

    async def ends(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        yield Waiting(Problem(reason, code))
        raise CallEnded(Problem(reason, code))

    return ends


async def test_a_run_says_what_its_open_call_waits_for_until_that_is_over(running: Running) -> None:
    comes, begins = asyncio.Event(), asyncio.Event()

    async def waits(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        yield Waiting(Problem("no worker is there", "NO_WORKER"))
        await comes.wait()
        yield Waiting(None)
        await begins.wait()
        async for outcome in all_right(asked):
            yield outcome

    running.begin(running.runner(Herd(waits), questions=20))

    waiting = await running.until(lambda run: bool(run.reason_code))
    assert waiting.state is RunState.QUEUED
    assert (waiting.reason, waiting.reason_code) == ("no worker is there", "NO_WORKER")
    comes.set()
    over = await running.until(lambda run: not run.reason_code)
    assert (over.state, over.reason, over.done) == (RunState.QUEUED, "", 0)
    begins.set()
    assert (await running.until(ended)).state is RunState.COMPLETE
    assert set(await running.states()) == {("done", 1)}


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


WAITS = ["QUEUE_FULL", "WORKER_BUSY", "NO_WORKER", "UNAVAILABLE", "DEADLINE_EXCEEDED"]


@pytest.mark.parametrize("code", WAITS)
@pytest.mark.parametrize("told_by", [call_ends, unanswered])
async def test_waiting_for_the_herd_costs_nothing_however_often_and_shows_its_reason(
    running: Running, told_by: Callable[..., Behaviour], code: str
) -> None:
    # It does not matter whether the herd calls it retryable: nothing was tried.
    herd = Herd(*[told_by("the herd is full", code, retryable=False)] * 8)
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


@pytest.mark.parametrize("told_by", [call_ends, unanswered])
async def test_waiting_on_is_no_change_of_the_run(
    running: Running, told_by: Callable[..., Behaviour]
) -> None:
    asked_again = asyncio.Event()

    async def last(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        asked_again.set()
        await running.stopping.wait()
        return
        yield

    runner = running.runner(Herd(*[told_by("no worker", "NO_WORKER")] * 8, last), questions=20)
    running.begin(runner)
    waiting = await running.until(lambda run: bool(run.reason))

    while not asked_again.is_set():
        running.clock.advance(timedelta(seconds=30))
        runner.wake()
        await running.changes.wait(running.changes.version, 0.01)

    assert await running.run() == waiting


async def test_what_a_run_waited_for_is_over_once_a_worker_begins(running: Running) -> None:
    go_on = asyncio.Event()

    async def begins(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        yield Started(tuple(asked))
        await go_on.wait()
        for number, question in asked.items():
            yield answered(number, question)

    full = call_ends("the herd is full", "QUEUE_FULL", retry_after=1.0)
    runner = running.runner(Herd(full, begins), questions=20)
    running.begin(runner)
    await running.until(lambda run: run.reason == "the herd is full")

    running.clock.advance(timedelta(seconds=1))
    runner.wake()
    run = await running.until(lambda run: run.state is RunState.RUNNING)
    go_on.set()

    assert (run.reason, run.reason_code) == ("", "")


async def test_a_deadline_that_passes_while_a_worker_is_at_it_is_an_attempt(
    running: Running,
) -> None:
    late = call_ends("too slow", "DEADLINE_EXCEEDED", started=True)
    running.begin(running.runner(Herd(late), questions=20, attempts=1))

    run = await running.until(ended)

    assert (run.state, run.failed, run.correct) == (RunState.FAILED, 20, 0)
    assert set(await running.states()) == {("failed", 1)}


@pytest.mark.parametrize("told_by", [call_ends, unanswered, waits_and_ends])
async def test_while_the_herd_sends_work_away_the_pauses_grow(
    running: Running, told_by: Callable[..., Behaviour]
) -> None:
    times: list[float] = []

    def noted(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        times.append(running.clock.monotonic())
        behaviour = told_by("no worker", "NO_WORKER") if len(times) < 5 else all_right
        return behaviour(asked)

    runner = running.runner(Herd(*[noted] * 5), questions=20, chunks=1)
    running.begin(runner)

    while len(times) < 5:
        running.clock.advance(timedelta(seconds=1))
        runner.wake()
        await running.changes.wait(running.changes.version, 0.01)

    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert all(pause >= least for pause, least in zip(pauses, (1, 2, 4, 8), strict=True))


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


async def test_a_models_failure_among_other_outcomes_counts_each_question_once(
    running: Running,
) -> None:
    broken_file = Problem("no such layer", "MODEL_LOAD_FAILED", retryable=False)

    async def mixed(asked: dict[int, Asked]) -> AsyncIterator[Outcome]:
        first, second, third, fourth, *_ = asked
        yield answered(first, asked[first])
        yield Unanswered(second, broken_file)
        yield Unanswered(third, broken_file)
        yield answered(fourth, asked[fourth])

    running.begin(running.runner(Herd(mixed), questions=20))

    run = await running.until(ended)

    assert (run.state, run.done, run.failed) == (RunState.FAILED, 1, 19)
    assert (run.reason, run.reason_code) == ("no such layer", "MODEL_LOAD_FAILED")


FETCH_FAILS = [
    call_ends("the source is out of reach", "MODEL_FETCH_FAILED"),
    unanswered("the source is out of reach", "MODEL_FETCH_FAILED"),
]


@pytest.mark.parametrize("fails", FETCH_FAILS)
async def test_a_model_that_cannot_be_fetched_is_asked_for_again_with_pauses_that_are_told(
    running: Running, fails: Behaviour
) -> None:
    herd = Herd(*[fails] * 5)
    runner = running.runner(herd, questions=20)
    running.begin(runner)

    waiting = await running.until(lambda run: bool(run.reason))
    pausing = await running.states()
    run = await running.until_ended(runner)

    assert (waiting.state, waiting.reason_code) == (RunState.QUEUED, "MODEL_FETCH_FAILED")
    assert waiting.reason == "the source is out of reach"
    assert set(pausing) == {("pending", 0)}
    assert (run.state, run.done, run.reason, run.reason_code) == (RunState.COMPLETE, 20, "", "")
    assert herd.calls == 6


@pytest.mark.parametrize("fails", FETCH_FAILS)
async def test_a_model_that_can_never_be_fetched_ends_the_run_with_that_reason(
    running: Running, fails: Behaviour
) -> None:
    herd = Herd(*[fails] * 3)
    runner = running.runner(herd, questions=20, failed_starts=3)
    running.begin(runner)

    run = await running.until_ended(runner)

    assert (run.state, run.failed, run.reason_code) == (RunState.FAILED, 20, "MODEL_FETCH_FAILED")
    assert run.reason.endswith("the first because: the source is out of reach")
    assert herd.calls == 3

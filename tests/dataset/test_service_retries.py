"""Runs over real gRPC that fail, wait, are tried again and retried, with a double of the router."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from evalpool.dataset.v1 import dataset_pb2
from evalpool.inference.v1 import inference_pb2
from evalpool_runtime.clock import ManualClock
from tests.dataset.dataset_harness import (
    ENDED,
    MODEL,
    OTHER_MODEL,
    DatasetHarness,
    evaluated,
    lines,
    refusal,
    results,
    running_dataset,
    start,
    until,
)
from tests.dataset.router_double import RouterDouble, sum_of

if TYPE_CHECKING:
    from tests.dataset.dataset_harness import Stub

COMPLETE = dataset_pb2.RUN_STATE_COMPLETE
FAILED = dataset_pb2.RUN_STATE_FAILED
UNFUNDED = dataset_pb2.RUN_STATE_UNFUNDED
LETTER = dataset_pb2.EVALUATOR_LETTER


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DatasetHarness]:
    async with (
        RouterDouble.knowing(MODEL, OTHER_MODEL) as router,
        running_dataset(tmp_path, router) as m,
    ):
        yield m


def benchmark(subject: str = MODEL, **fields: object) -> dataset_pb2.BenchmarkRequest:
    return dataset_pb2.BenchmarkRequest(dataset="d", subject=subject, **fields)  # type: ignore[arg-type]


async def test_after_a_broken_stream_the_rest_is_asked_again_and_each_counts_once(
    harness: DatasetHarness,
) -> None:
    harness.router.break_after = [4, 3]
    stub = await harness.load(lines(10))

    score = await evaluated(stub)

    assert (score.state, score.done, score.correct, score.failed) == (COMPLETE, 10, 10, 0)
    assert [len(request.questions) for request in harness.router.scored] == [10, 6, 3]
    assert [r.attempts for r in await results(stub, score.run)] == [1] * 10


async def test_a_run_says_what_it_waits_for_while_its_call_is_open(
    harness: DatasetHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalpool_dataset.wait.TOLD_AFTER_SECONDS", 0.0)
    nobody = inference_pb2.ScoreProgress(stage="no worker is there", reason_code="NO_WORKER")
    harness.router.progress = [nobody]
    harness.router.open.clear()
    stub = await harness.load(lines(4))
    run = (await start(stub)).run

    waiting = await until(stub, run, reason_code="NO_WORKER")

    shown = (await stub.GetScore(dataset_pb2.GetScoreRequest(run=run))).score
    for score in (waiting, shown):
        assert score.state == dataset_pb2.RUN_STATE_QUEUED
        assert (score.reason, score.reason_code) == ("no worker is there", "NO_WORKER")
    harness.router.open.set()
    ended = await until(stub, run, *ENDED)
    assert (ended.state, ended.reason, ended.reason_code) == (COMPLETE, "", "")
    assert [r.attempts for r in await results(stub, run)] == [1] * 4


async def test_results_that_come_twice_count_once(harness: DatasetHarness) -> None:
    harness.router.repeats = 3
    stub = await harness.load(lines(10))

    score = await evaluated(stub)

    assert (score.state, score.done, score.correct) == (COMPLETE, 10, 10)


async def test_a_full_queue_is_waited_for_and_costs_no_attempt(harness: DatasetHarness) -> None:
    # More often than a question is tried.
    harness.router.refusals = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")] * 8
    stub = await harness.load(lines(3))

    score = await evaluated(stub)

    assert (score.state, score.done) == (COMPLETE, 3)
    assert len(harness.router.scored) == 9
    assert {r.attempts for r in await results(stub, score.run)} == {1}


@pytest.mark.parametrize("where", ["call", "question"])
async def test_a_models_failure_fails_the_run_with_its_reason_and_a_new_start_retries_it(
    harness: DatasetHarness, where: str
) -> None:
    stub = await harness.load(lines(6))
    if where == "call":
        harness.router.refusals = [(grpc.StatusCode.FAILED_PRECONDITION, "MODEL_LOAD_FAILED")]
    else:
        harness.router.failure = lambda question: inference_pb2.QuestionFailure(
            reason_code="MODEL_LOAD_FAILED", message="MODEL_LOAD_FAILED as told", retryable=False
        )

    score = await evaluated(stub)

    assert score.state == FAILED
    assert (score.reason_code, score.reason) == (
        "MODEL_LOAD_FAILED",
        "MODEL_LOAD_FAILED as told",
    )
    assert (score.done, score.failed) == (0, 6)

    harness.router.failure = lambda question: None
    again = await evaluated_anew(stub)
    assert (again.state, again.done, again.failed, again.reason) == (COMPLETE, 6, 0, "")
    assert again.run == score.run


async def evaluated_anew(stub: object, **fields: object) -> dataset_pb2.Score:
    """Start a run that has ended once more, and wait for its end."""
    score = await start(stub, **fields)  # type: ignore[arg-type]
    assert score.state not in ENDED
    return await until(stub, score.run, *ENDED)  # type: ignore[arg-type]


async def test_a_question_that_fails_for_good_is_never_a_wrong_answer(
    harness: DatasetHarness,
) -> None:
    def fail_one(
        question: inference_pb2.ChoiceQuestion,
    ) -> inference_pb2.QuestionFailure | None:
        if "number 2." not in question.prompt:
            return None
        return inference_pb2.QuestionFailure(
            reason_code="CONTEXT_TOO_LONG", message="too long", retryable=False
        )

    harness.router.failure = fail_one
    stub = await harness.load(lines(4))

    score = await evaluated(stub)

    assert (score.state, score.reason_code) == (FAILED, "CONTEXT_TOO_LONG")
    assert "too long" in score.reason
    assert (score.correct, score.done, score.failed, score.score) == (3, 3, 1, 1.0)
    failed = (await results(stub, score.run))[1]
    assert failed.state == dataset_pb2.EVALUATION_STATE_FAILED
    assert (failed.correct, failed.reason) == (False, "too long")

    harness.router.failure = lambda question: None
    harness.router.scored.clear()
    retried = await start(stub)
    assert (retried.state, retried.reason) == (dataset_pb2.RUN_STATE_RUNNING, "")
    assert (retried.done, retried.failed, retried.total, retried.progress) == (3, 0, 4, 0.75)
    again = await until(stub, score.run, *ENDED)
    assert (again.state, again.correct, again.done, again.progress) == (COMPLETE, 4, 4, 1.0)
    assert len(harness.router.prompts) == 1


@pytest.mark.parametrize("what", ["missing", "not finite"])
async def test_scores_from_which_nothing_follows_are_the_machinerys_failure(
    tmp_path: Path, what: str
) -> None:
    def spoil(result: inference_pb2.QuestionResult) -> None:
        if what == "missing":
            del result.scores[2]
        else:
            result.scores[0].sum_logprob = float("nan")

    async with (
        RouterDouble.knowing(MODEL) as router,
        running_dataset(tmp_path, router, max_tries=1) as harness,
    ):
        router.change = spoil
        score = await evaluated(await harness.load(lines(3)))
    assert (score.state, score.done, score.failed) == (FAILED, 0, 3)
    assert score.reason_code == "EVALUATION_FAILED"


async def test_a_run_whose_scores_are_all_alike_is_refused_and_a_new_start_asks_all_again(
    harness: DatasetHarness,
) -> None:
    harness.router.sums = lambda prompt, choice: -1.0
    stub = await harness.load(lines(5))

    score = await evaluated(stub)

    assert (score.state, score.reason_code) == (FAILED, "DEGENERATE_SCORES")
    harness.router.sums = sum_of
    again = await evaluated_anew(stub)
    assert (again.state, again.correct, again.done, again.total) == (COMPLETE, 5, 5, 5)
    assert again.metrics == {"acc": 1.0, "acc_norm": 0.0, "acc_bytes": 0.0}


async def test_a_refused_hold_leaves_the_run_unfunded_until_it_is_started_again(
    harness: DatasetHarness,
) -> None:
    harness.router.refusals = [(grpc.StatusCode.FAILED_PRECONDITION, "HOLD_REFUSED")]
    stub = await harness.load(lines(3))

    score = await evaluated(stub)

    assert (score.state, score.reason_code, score.failed) == (UNFUNDED, "HOLD_REFUSED", 0)
    await stub.Evaluate(dataset_pb2.EvaluateRequest())
    assert len(harness.router.scored) == 1
    assert (await evaluated_anew(stub)).state == COMPLETE


@pytest.mark.parametrize("reason", ["ENGINE_FAILED", "WORKER_LOST"])
async def test_letters_that_no_worker_ever_gives_end_failed_and_can_be_retried(
    tmp_path: Path, reason: str
) -> None:
    async with (
        RouterDouble.knowing(MODEL) as router,
        running_dataset(tmp_path, router, max_tries=2) as harness,
    ):
        router.always = (grpc.StatusCode.INTERNAL, reason)
        stub = await harness.load(lines(3))

        score = await evaluated(stub, evaluator=LETTER)
        found = await results(stub, score.run)
        router.always = None
        again = await evaluated_anew(stub, evaluator=LETTER)

    assert (score.state, score.reason_code) == (FAILED, "EVALUATION_FAILED")
    assert (score.correct, score.done, score.failed) == (0, 0, 3)
    assert f"{reason} as told" in score.reason
    assert [(r.attempts, r.reason) for r in found] == [(2, f"{reason} as told")] * 3
    assert (again.state, again.done, again.failed) == (COMPLETE, 3, 0)


@pytest.mark.parametrize("evaluator", [dataset_pb2.EVALUATOR_LOGLIKELIHOOD, LETTER])
async def test_a_router_that_never_gets_as_far_as_a_worker_ends_the_run_failed(
    tmp_path: Path, evaluator: dataset_pb2.Evaluator.ValueType
) -> None:
    async with (
        RouterDouble.knowing(MODEL) as router,
        running_dataset(tmp_path, router, max_failed_starts=2) as harness,
    ):
        router.always = (grpc.StatusCode.INTERNAL, "INTERNAL")
        score = await evaluated(await harness.load(lines(3)), evaluator=evaluator)
        found = await results(await harness.stub(), score.run)

    assert (score.state, score.reason_code, score.failed) == (FAILED, "EVALUATION_FAILED", 3)
    assert "INTERNAL as told" in score.reason
    assert {r.attempts for r in found} == {0}


@asynccontextmanager
async def with_a_clock_that_stands_still(
    tmp_path: Path, **settings: float
) -> AsyncIterator[DatasetHarness]:
    """A service on which no pause ends by itself, and a herd that fails each question once."""
    clock = ManualClock(datetime.now(UTC))
    async with (
        RouterDouble.knowing(MODEL) as router,
        running_dataset(tmp_path, router, clock=clock, **settings) as harness,
    ):
        seen: set[str] = set()

        def fail_first(
            question: inference_pb2.ChoiceQuestion,
        ) -> inference_pb2.QuestionFailure | None:
            if question.prompt in seen:
                return None
            seen.add(question.prompt)
            return inference_pb2.QuestionFailure(
                reason_code="ENGINE_FAILED", message="not yet", retryable=True
            )

        router.failure = fail_first
        yield harness


async def until_all_failed_once(stub: Stub, run: str) -> None:
    # A try that fails is no change of the run's score, so no watch tells of it.
    while {r.reason for r in await results(stub, run)} != {"not yet"}:
        pass


async def test_evaluate_ends_the_pauses_of_as_many_questions_as_it_is_asked_for(
    tmp_path: Path,
) -> None:
    async with with_a_clock_that_stands_still(tmp_path) as harness:
        stub = await harness.load(lines(5))
        run = (await start(stub)).run
        await until_all_failed_once(stub, run)

        first = await stub.Evaluate(dataset_pb2.EvaluateRequest(run=run, limit=2))
        some = await until(stub, run, done=2)
        pending = [r.question for r in await results(stub, run) if r.reason == "not yet"]
        rest = await stub.Evaluate(dataset_pb2.EvaluateRequest())
        score = await until(stub, run, *ENDED)

    assert (first.scheduled, some.done, pending) == (2, 2, [3, 4, 5])
    assert rest.scheduled == 3
    assert (score.state, score.done, score.correct) == (COMPLETE, 5, 5)


async def test_the_sweep_takes_up_what_a_pause_would_keep_for_ever(tmp_path: Path) -> None:
    async with with_a_clock_that_stands_still(tmp_path, evaluate_seconds=1.0) as harness:
        stub = await harness.load(lines(5))

        score = await evaluated(stub)

        assert (score.state, score.done, score.correct) == (COMPLETE, 5, 5)
        assert {r.attempts for r in await results(stub, score.run)} == {2}


async def test_after_a_restart_in_the_middle_each_question_counts_once(tmp_path: Path) -> None:
    async with (
        RouterDouble.knowing(MODEL) as router,
        running_dataset(tmp_path, router, chunk_questions=8, concurrent_chunks=1) as harness,
    ):
        router.open.clear()
        router.free = 5
        stub = await harness.load(lines(20))
        run = (await start(stub)).run
        await router.reached.wait()
        before = await until(stub, run, done=5)
    assert before.done == 5

    async with RouterDouble.knowing(MODEL) as router, running_dataset(tmp_path, router) as harness:
        stub = await harness.stub()
        score = await until(stub, run, *ENDED)
        found = await results(stub, run)
    assert (score.state, score.done, score.correct, score.failed) == (COMPLETE, 20, 20, 0)
    assert len(router.prompts) == 15
    assert [r.question for r in found] == list(range(1, 21))


async def test_after_a_kill_its_leases_are_taken_back_at_once(tmp_path: Path) -> None:
    async with RouterDouble.knowing(MODEL) as router:
        router.always = (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        async with running_dataset(tmp_path, router) as harness:
            run = (await start(await harness.load(lines(20)))).run
        router.always = None
        router.open.clear()
        killed = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "evalpool", "serve", "dataset"),
            *("--data-dir", str(tmp_path / "service"), "--listen", "127.0.0.1:0"),
            *("--router-endpoint", router.endpoint, "--router-address", router.identity.address),
            *("--metrics-listen", "", "--lease-seconds", "3600"),
        )
        try:
            await router.reached.wait()
        finally:
            killed.kill()
            await killed.wait()
        router.open.set()

        async with running_dataset(tmp_path, router) as harness:
            score = await until(await harness.stub(), run, *ENDED)

    assert (score.state, score.done, score.failed) == (COMPLETE, 20, 0)


async def test_a_router_out_of_reach_is_unavailable_and_no_refusal(tmp_path: Path) -> None:
    async with RouterDouble.knowing(MODEL) as router:
        pass
    async with running_dataset(tmp_path, router) as harness:
        stub = await harness.load(lines(1))
        error = await refusal(stub.Benchmark(benchmark()))
    assert error.code is grpc.StatusCode.UNAVAILABLE

"""Scoring choices over real gRPC, with workers that are doubles."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc import aio

from evalpool.inference.v1 import inference_pb2
from evalpool.models import find_model
from tests.router.router_harness import (
    MODEL,
    RouterHarness,
    all_of,
    assert_complete,
    error_of,
    fields_of,
    idle,
    results_of,
    running_router,
    scoring,
    someone,
)


async def test_questions_are_shared_by_workers_and_each_is_answered_once(
    router: RouterHarness,
) -> None:
    workers = [await router.worker() for _ in range(3)]
    stub = await router.stub(router.dataset)
    responses = await all_of(stub.ScoreChoices(scoring(500)))
    assert_complete(responses, 500)
    assert all(worker.scored for worker in workers)
    assert all(len(p.questions) <= 64 for worker in workers for p in worker.scored)
    started = [r.started for r in responses if r.HasField("started")]
    assert {s.worker for s in started} == {worker.address for worker in workers}
    # What a worker calls itself and the questions does not reach the caller.
    assert sorted(i for s in started for i in s.ids) == sorted(f"q{n}" for n in range(500))
    assert responses[-1].complete.usage.computed_tokens == 2000
    statistics = await idle(router)
    assert (statistics.completed, statistics.queued, statistics.running) == (500, 0, 0)
    assert statistics.models[0].digest == MODEL


async def test_workers_are_told_where_the_model_is_and_who_sends_the_work(
    router: RouterHarness,
) -> None:
    worker = await router.worker()
    stub = await router.stub(router.dataset)
    await all_of(stub.ScoreChoices(scoring(3)))
    model = worker.scored[0].model
    assert model.digest == MODEL
    assert list(model.sources) == [str(find_model("SmolLM2-135M-Instruct.Q4_1").source)]
    assert worker.callers == {router.service.address}


@pytest.mark.parametrize(
    "field", ["model_digest", "engine_build", "worker", "generation", "dispatch"]
)
async def test_results_of_another_origin_are_discarded_and_scored_elsewhere(
    router: RouterHarness, field: str
) -> None:
    forger = await router.worker()

    def forge(provenance: inference_pb2.Provenance) -> None:
        value = getattr(provenance, field)
        setattr(provenance, field, "0" * 64 if isinstance(value, str) else value + 1)

    forger.forge = forge
    stub = await router.stub(router.dataset)
    reading = asyncio.create_task(all_of(stub.ScoreChoices(scoring(20))))
    await forger.called.wait()
    honest = await router.worker()
    responses = await reading
    assert_complete(responses, 20)
    assert {result.provenance.worker for result in results_of(responses)} == {honest.address}


async def test_results_under_an_old_generation_do_not_count(router: RouterHarness) -> None:
    worker = await router.worker()
    worker.open.clear()
    stub = await router.stub(router.dataset)
    reading = asyncio.create_task(all_of(stub.ScoreChoices(scoring(5))))
    await worker.reached.wait()
    again = await worker.register(await router.stub(worker.identity), instance="second")
    assert again.generation == 2
    worker.open.set()
    responses = await reading
    assert_complete(responses, 5)
    assert {result.provenance.generation for result in results_of(responses)} == {2}


async def test_cancelling_frees_the_workers_slot(router: RouterHarness) -> None:
    worker = await router.worker()
    worker.open.clear()
    stub = await router.stub(router.dataset)
    call = stub.ScoreChoices(scoring(10))
    reading = asyncio.create_task(all_of(call))
    await worker.reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await worker.cancelled.wait()
    statistics = await idle(router)
    assert (statistics.queued, statistics.running) == (0, 0)


async def test_a_callers_deadline_reaches_the_worker(router: RouterHarness) -> None:
    worker = await router.worker()
    worker.open.clear()
    stub = await router.stub(router.dataset)
    with pytest.raises(aio.AioRpcError) as refusal:
        await all_of(stub.ScoreChoices(scoring(10), timeout=0.3))
    assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await worker.cancelled.wait()
    await idle(router)


async def test_a_request_that_its_worker_does_not_finish_in_time_did_not_lack_a_worker(
    tmp_path: Path,
) -> None:
    async with running_router(tmp_path, score_seconds=0.3) as router:
        worker = await router.worker()
        worker.open.clear()
        stub = await router.stub(router.dataset)
        with pytest.raises(aio.AioRpcError) as refusal:
            await all_of(stub.ScoreChoices(scoring(10)))
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error_of(refusal.value).reason == "DEADLINE_EXCEEDED"


async def test_without_a_worker_a_request_waits_says_so_and_ends(tmp_path: Path) -> None:
    async with running_router(tmp_path, score_seconds=0.3, progress_seconds=0.1) as router:
        stub = await router.stub(router.dataset)
        responses = []

        async def read() -> None:
            async for response in stub.ScoreChoices(scoring(10)):
                responses.append(response)

        with pytest.raises(aio.AioRpcError) as refusal:
            await read()
        assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert error_of(refusal.value).reason == "NO_WORKER"
        assert "evaluate; start one" in (refusal.value.details() or "")
        assert responses
        assert all("evaluate" in response.progress.stage for response in responses)
        assert {response.progress.reason_code for response in responses} == {"NO_WORKER"}


async def test_what_waits_for_its_turn_or_is_at_a_worker_has_no_reason_to_tell(
    tmp_path: Path,
) -> None:
    async with running_router(tmp_path, progress_seconds=0.1) as router:
        worker = await router.worker(slots=1)
        worker.open.clear()
        # Its word about what keeps the caller waiting is not passed on.
        worker.progress = inference_pb2.ScoreProgress(stage="loading", reason_code="NO_WORKER")
        stub = await router.stub(router.dataset)
        at_work = aiter(stub.ScoreChoices(scoring(10)))
        await worker.reached.wait()
        in_the_queue = aiter(stub.ScoreChoices(scoring(10)))
        for call, stages in (
            (at_work, {"loading", "at work"}),
            (in_the_queue, {"waiting in the queue"}),
        ):
            told: set[str] = set()
            while not stages <= told:
                response = await anext(call)
                told.add(response.progress.stage)
                assert not response.progress.reason_code
        worker.open.set()
        for call in (at_work, in_the_queue):
            assert not any([response.progress.reason_code async for response in call])


async def test_the_place_in_the_queue_is_told(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router:
        worker = await router.worker(slots=1)
        worker.open.clear()
        stub = await router.stub(router.dataset)
        first = asyncio.create_task(all_of(stub.ScoreChoices(scoring(100))))
        await worker.reached.wait()
        second = stub.ScoreChoices(scoring(10))
        response = await anext(aiter(second))
        assert response.progress.queue_position == 50
        second.cancel()
        worker.open.set()
        assert_complete(await first, 100)


async def test_a_full_queue_refuses_with_a_delay(tmp_path: Path) -> None:
    async with running_router(tmp_path, queue_units=10, caller_share=1.0) as router:
        stub = await router.stub(router.dataset)
        with pytest.raises(aio.AioRpcError) as refusal:
            await all_of(stub.ScoreChoices(scoring(11)))
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error_of(refusal.value).reason == "QUEUE_FULL"


async def test_every_violation_of_a_request_is_told(router: RouterHarness) -> None:
    stub = await router.stub(router.dataset)
    bad = scoring(5, multiplier="0.5")
    bad.questions[1].id = "q0"
    bad.questions[2].choices.append("")
    del bad.questions[0].choices[:]
    bad.questions[3].prompts.extend("p" for _ in bad.questions[3].choices)
    bad.questions[4].prompt = ""
    bad.questions[4].prompts.append("p")
    bad.reference = "r" * 129
    with pytest.raises(aio.AioRpcError) as refusal:
        await all_of(stub.ScoreChoices(bad))
    assert fields_of(refusal.value) == {
        "multiplier",
        "reference",
        "questions[0].choices",
        "questions[1].id",
        "questions[2].choices",
        "questions[3].prompts",
        "questions[4].prompts",
    }


@pytest.mark.parametrize("count", [0, 1001])
async def test_one_to_a_thousand_questions_are_taken(router: RouterHarness, count: int) -> None:
    stub = await router.stub(router.dataset)
    with pytest.raises(aio.AioRpcError) as refusal:
        await all_of(stub.ScoreChoices(scoring(count)))
    assert fields_of(refusal.value) == {"questions"}


async def test_only_the_dataset_service_may_score(router: RouterHarness) -> None:
    with pytest.raises(aio.AioRpcError) as refusal:
        await all_of((await someone(router)).ScoreChoices(scoring(1)))
    assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED

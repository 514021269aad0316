"""What becomes of work that a worker does not do, over real gRPC, with workers that are doubles."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import grpc
import pytest
from grpc import aio

from evalpool.inference.v1 import inference_pb2
from evalpool.models import find_model
from evalpool.router.v1 import router_pb2
from tests.router.router_harness import (
    RouterHarness,
    all_of,
    assert_complete,
    error_of,
    idle,
    infer,
    results_of,
    running_router,
    scoring,
    someone,
    text_of,
)


async def test_a_worker_killed_in_the_midst_of_a_package_loses_nothing(
    router: RouterHarness,
) -> None:
    doomed = await router.worker()
    doomed.open.clear()
    doomed.free = 10
    stub = await router.stub(router.dataset)
    reading = asyncio.create_task(all_of(stub.ScoreChoices(scoring(300))))
    await doomed.reached.wait()
    other = await router.worker()
    await doomed.kill()
    responses = await reading
    assert_complete(responses, 300)
    by = Counter(result.provenance.worker for result in results_of(responses))
    assert by[doomed.address] == 20
    assert by[other.address] == 280


async def test_questions_that_a_worker_leaves_out_are_scored_by_another(
    router: RouterHarness,
) -> None:
    forgetful = await router.worker()
    forgetful.leave_out = {"q3", "q4"}
    stub = await router.stub(router.dataset)
    call = stub.ScoreChoices(scoring(10))
    responses = []
    async for response in call:
        responses.append(response)
        if response.HasField("results"):
            break
    await router.worker()
    responses += [response async for response in call]
    assert_complete(responses, 10)


async def test_questions_that_nobody_answers_are_given_up_and_the_others_stand(
    router: RouterHarness,
) -> None:
    worker = await router.worker()
    worker.leave_out = {"q3"}
    stub = await router.stub(router.dataset)
    responses = await all_of(stub.ScoreChoices(scoring(5)))
    failed = [r for r in results_of(responses) if r.HasField("failure")]
    assert [r.id for r in failed] == ["q3"]
    assert (failed[0].failure.reason_code, failed[0].failure.retryable) == ("WORKER_LOST", True)
    assert (responses[-1].complete.scored, responses[-1].complete.failed) == (4, 1)


async def test_a_busy_worker_is_asked_again(router: RouterHarness) -> None:
    worker = await router.worker()
    worker.refusals = 3
    stub = await router.stub(router.dataset)
    responses = await all_of(stub.ScoreChoices(scoring(40)))
    assert_complete(responses, 40)


async def test_a_message_that_no_worker_takes_is_given_up_and_not_sent_for_ever(
    tmp_path: Path,
) -> None:
    async with running_router(tmp_path, losses=2) as router:
        worker = await router.worker()
        worker.error = (grpc.StatusCode.RESOURCE_EXHAUSTED, "")
        with pytest.raises(aio.AioRpcError) as refusal:
            await text_of(await someone(router), infer())
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        assert error_of(refusal.value).reason == "WORKER_LOST"


async def test_a_prompt_that_has_sent_nothing_moves_to_another_worker(
    router: RouterHarness,
) -> None:
    doomed = await router.worker()
    doomed.open.clear()
    stub = await someone(router)
    reading = asyncio.create_task(text_of(stub, infer()))
    await doomed.reached.wait()
    await router.worker()
    await doomed.kill()
    assert await reading == "Paris."


async def test_an_answer_that_has_begun_is_never_spliced(router: RouterHarness) -> None:
    doomed = await router.worker()
    doomed.open.clear()
    doomed.free = 1
    stub = await someone(router)
    call = stub.Infer(infer())
    first = await anext(aiter(call))
    assert first.chunk.text == "Par"
    await router.worker()
    await doomed.kill()
    with pytest.raises(aio.AioRpcError) as refusal:
        [response async for response in call]
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    assert error_of(refusal.value).reason == "WORKER_LOST"


async def test_a_model_that_a_worker_cannot_fetch_ends_the_request(router: RouterHarness) -> None:
    worker = await router.worker()
    worker.error = (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_FETCH_FAILED")
    stub = await router.stub(router.dataset)
    with pytest.raises(aio.AioRpcError) as refusal:
        await all_of(stub.ScoreChoices(scoring(100)))
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error_of(refusal.value).reason == "MODEL_FETCH_FAILED"


async def test_what_one_worker_cannot_do_by_trouble_of_its_own_another_does(
    router: RouterHarness,
) -> None:
    troubled = [await router.worker() for _ in range(2)]
    troubled[0].error = (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_FETCH_FAILED")
    troubled[1].error = (grpc.StatusCode.INTERNAL, "ENGINE_FAILED")
    good = await router.worker()
    dataset = await router.stub(router.dataset)
    responses = await all_of(dataset.ScoreChoices(scoring(100)))
    assert_complete(responses, 100)
    assert {result.provenance.worker for result in results_of(responses)} == {good.address}
    assert await text_of(await someone(router), infer()) == "Paris."
    assert all(worker.called.is_set() for worker in troubled)


@pytest.mark.parametrize("reason", ["DIGEST_MISMATCH", "INVALID_GGUF"])
async def test_a_fault_of_the_model_itself_ends_the_request_at_its_first_worker(
    router: RouterHarness, reason: str
) -> None:
    workers = [await router.worker() for _ in range(2)]
    for worker in workers:
        worker.error = (grpc.StatusCode.FAILED_PRECONDITION, reason)
    with pytest.raises(aio.AioRpcError) as refusal:
        await text_of(await someone(router), infer())
    assert error_of(refusal.value).reason == reason
    assert sum(worker.called.is_set() for worker in workers) == 1


async def test_what_a_worker_calls_the_values_of_its_error_does_not_matter(
    router: RouterHarness,
) -> None:
    worker = await router.worker()
    worker.error = (grpc.StatusCode.FAILED_PRECONDITION, "INVALID_GGUF")
    worker.metadata = dict.fromkeys(
        ("self", "reason", "message", "retry_after", "violations", "no name"), "told"
    )
    with pytest.raises(aio.AioRpcError) as refusal:
        await text_of(await someone(router), infer())
    assert error_of(refusal.value).metadata == worker.metadata
    await idle(router)


async def test_a_question_that_a_workers_engine_fails_is_scored_by_another(
    router: RouterHarness,
) -> None:
    worker = await router.worker(slots=1)
    worker.failures["q3"] = inference_pb2.QuestionFailure(
        reason_code="ENGINE_FAILED", message="the decode failed", retryable=True
    )
    other = await router.worker(kinds=(router_pb2.WORKER_KIND_EVALUATE,), slots=1)
    other.failures["q3"] = inference_pb2.QuestionFailure(
        reason_code="UNHEARD_OF", message="it failed here too", retryable=True
    )
    stub = await router.stub(router.dataset)
    responses = await all_of(stub.ScoreChoices(scoring(5)))
    failed = [r.failure for r in results_of(responses) if r.HasField("failure")]
    assert [(f.reason_code, f.message, f.retryable) for f in failed] == [
        ("ENGINE_FAILED", "it failed here too", True)
    ]
    assert (responses[-1].complete.scored, responses[-1].complete.failed) == (4, 1)
    assert worker.scored
    assert other.scored

    third = await router.worker()
    responses = await all_of(stub.ScoreChoices(scoring(5)))
    assert_complete(responses, 5)
    by = {result.id: result.provenance.worker for result in results_of(responses)}
    assert by["q3"] == third.address


async def test_a_question_that_no_attempt_can_answer_fails_at_its_first_worker(
    router: RouterHarness,
) -> None:
    workers = [await router.worker() for _ in range(2)]
    failure = inference_pb2.QuestionFailure(
        reason_code="CONTEXT_TOO_LONG", message="too long for the model", retryable=False
    )
    for worker in workers:
        worker.failures["q3"] = failure
    stub = await router.stub(router.dataset)
    responses = await all_of(stub.ScoreChoices(scoring(5)))
    assert [r.failure for r in results_of(responses) if r.HasField("failure")] == [failure]
    assert sum(len(worker.scored) for worker in workers) == 1


async def test_a_model_that_brings_workers_down_is_not_tried_again_for_a_while(
    tmp_path: Path,
) -> None:
    async with running_router(tmp_path, crashes=3, losses=2) as router:
        workers = [await router.worker() for _ in range(4)]
        for worker in workers:
            # What gRPC says of a connection that broke.
            worker.error = (grpc.StatusCode.UNAVAILABLE, "")
        stub = await someone(router)
        reasons = []
        for _ in range(3):
            with pytest.raises(aio.AioRpcError) as refusal:
                await text_of(stub, infer())
            reasons.append(error_of(refusal.value).reason)
        assert reasons == ["WORKER_LOST", "ENGINE_FAILED", "ENGINE_FAILED"]
        assert sum(worker.called.is_set() for worker in workers) == 3
        await idle(router)


async def test_a_model_that_no_worker_can_hold_waits_and_says_so_until_a_larger_one_joins(
    tmp_path: Path,
) -> None:
    size = find_model("SmolLM2-135M-Instruct.Q4_1").size_bytes
    async with running_router(tmp_path, progress_seconds=0.1, infer_seconds=0.3) as router:
        small = await router.worker(memory=90_000_000)
        stub = await router.stub(router.dataset)
        call = stub.ScoreChoices(scoring(10))
        first = await anext(aiter(call))
        for number in (size, 90_000_000):
            assert str(number) in first.progress.stage
        with pytest.raises(aio.AioRpcError) as refusal:
            await text_of(await someone(router), infer())
        assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert error_of(refusal.value).reason == "NO_WORKER"
        for number in (size, 90_000_000):
            assert str(number) in (refusal.value.details() or "")
        large = await router.worker(memory=size)
        responses = [first, *[response async for response in call]]
        assert_complete(responses, 10)
        assert not small.called.is_set()
        assert large.scored


async def test_a_worker_that_refuses_this_router_leaves_the_work_to_others(
    router: RouterHarness,
) -> None:
    hostile = await router.worker()
    hostile.error = (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED")
    await router.worker()
    assert await text_of(await someone(router), infer()) == "Paris."
    assert hostile.called.is_set()


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    ],
)
async def test_where_every_worker_refuses_this_router_the_caller_is_told_so_and_does_not_wait(
    router: RouterHarness, code: grpc.StatusCode
) -> None:
    workers = [await router.worker() for _ in range(2)]
    for worker in workers:
        worker.error = (code, "")
    dataset = await router.stub(router.dataset)
    with pytest.raises(aio.AioRpcError) as refusal:
        await all_of(dataset.ScoreChoices(scoring(10)))
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error_of(refusal.value).reason == "NO_WORKER"
    sentence = refusal.value.details() or ""
    assert code.name in sentence
    assert any(worker.address in sentence for worker in workers)
    assert all(worker.called.is_set() for worker in workers)

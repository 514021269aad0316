"""The router over real gRPC, with workers that are doubles."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import grpc
import pytest
from grpc import aio

from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.models import find_model
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from tests.router.router_harness import (
    MODEL,
    RouterHarness,
    error_of,
    field_of,
    fields_of,
    running_router,
    scoring,
)
from tests.router.worker_double import WorkerDouble, score


async def all_of(
    call: aio.UnaryStreamCall[
        inference_pb2.ScoreChoicesRequest, inference_pb2.ScoreChoicesResponse
    ],
) -> list[inference_pb2.ScoreChoicesResponse]:
    return [response async for response in call]


def results_of(
    responses: list[inference_pb2.ScoreChoicesResponse],
) -> list[inference_pb2.QuestionResult]:
    return [result for response in responses for result in response.results.results]


def assert_complete(responses: list[inference_pb2.ScoreChoicesResponse], count: int) -> None:
    """Every question was scored exactly once, by right numbers, and the end says so."""
    results = results_of(responses)
    assert Counter(result.id for result in results) == Counter(f"q{n}" for n in range(count))
    for result in results:
        prompt = f"Question {result.id[1:]}?"
        expected = [score(prompt, choice) for choice in (" a", " bb", " ccc")]
        assert [s.sum_logprob for s in result.scores] == expected
        assert result.provenance.model_digest == MODEL
    assert responses[-1].WhichOneof("event") == "complete"
    assert (responses[-1].complete.scored, responses[-1].complete.failed) == (count, 0)
    assert {response.reference for response in responses} == {"run"}


def infer(prompt: str = "The capital of France is", **fields: object) -> inference_pb2.InferRequest:
    return inference_pb2.InferRequest(
        model=inference_pb2.ModelReference(digest=MODEL),
        prompt=prompt,
        reference="mine",
        **fields,  # type: ignore[arg-type]
    )


async def text_of(
    stub: router_pb2_grpc.RouterServiceAsyncStub, request: inference_pb2.InferRequest
) -> str:
    return "".join([response.chunk.text async for response in stub.Infer(request)])


async def someone(router: RouterHarness) -> router_pb2_grpc.RouterServiceAsyncStub:
    return await router.stub(Identity.generate())


async def idle(router: RouterHarness) -> router_pb2.GetStatisticsResponse:
    """The statistics, once no slot is taken."""
    stub = await router.operator()
    async with asyncio.timeout(30):
        while True:
            statistics = await stub.GetStatistics(router_pb2.GetStatisticsRequest())
            if not statistics.busy_slots:
                return statistics


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


async def test_without_a_worker_a_request_waits_says_so_and_ends(tmp_path: Path) -> None:
    async with running_router(tmp_path, score_seconds=0.3, progress_seconds=0.1) as router:
        stub = await router.stub(router.dataset)
        responses = []

        async def read() -> None:
            async for response in stub.ScoreChoices(scoring(10)):
                responses.append(response)

        with pytest.raises(aio.AioRpcError) as refusal:
            await read()
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error_of(refusal.value).reason == "DEADLINE_EXCEEDED"
        assert responses
        assert all("evaluate" in response.progress.stage for response in responses)


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


async def test_a_draining_worker_finishes_and_gets_nothing_new(router: RouterHarness) -> None:
    worker = await router.worker(slots=1)
    worker.open.clear()
    stub = await router.stub(router.dataset)
    reading = asyncio.create_task(all_of(stub.ScoreChoices(scoring(200))))
    await worker.reached.wait()
    operator = await router.operator()
    drained = await operator.DrainWorker(
        router_pb2.DrainWorkerRequest(worker=worker.address, drain=True)
    )
    assert drained.worker.draining
    worker.open.set()
    await idle(router)
    assert len(worker.scored) == 1
    other = await router.worker()
    assert_complete(await reading, 200)
    assert len(worker.scored) == 1
    assert other.scored


async def test_draining_outlasts_a_restart_of_router_and_worker(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router:
        worker = await router.worker()
        operator = await router.operator()
        await operator.DrainWorker(router_pb2.DrainWorkerRequest(worker=worker.address, drain=True))
        identity = worker.identity
    async with running_router(tmp_path) as router, WorkerDouble.new() as worker:
        worker.identity = identity
        response = await worker.register(await router.stub(identity))
        assert response.generation == 2
        operator = await router.operator()
        listed = await operator.ListWorkers(router_pb2.ListWorkersRequest())
        assert [(w.address, w.draining) for w in listed.workers] == [(identity.address, True)]


async def test_an_answer_streams_and_ends_with_its_origin(router: RouterHarness) -> None:
    worker = await router.worker()
    stub = await someone(router)
    responses = [response async for response in stub.Infer(infer())]
    assert [r.chunk.text for r in responses[:-1]] == ["Par", "is."]
    assert {r.reference for r in responses} == {"mine"}
    complete = responses[-1].complete
    assert complete.finish_reason == inference_pb2.FINISH_REASON_STOP
    assert complete.provenance.worker == worker.address
    assert complete.usage.completion_tokens == 2


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


async def test_an_answer_of_another_origin_does_not_end_well(router: RouterHarness) -> None:
    forger = await router.worker()
    forger.forge = lambda provenance: setattr(provenance, "model_digest", "0" * 64)
    stub = await someone(router)
    with pytest.raises(aio.AioRpcError) as refusal:
        await text_of(stub, infer())
    assert error_of(refusal.value).reason == "WORKER_LOST"


async def test_a_workers_refusal_of_the_request_reaches_the_caller(router: RouterHarness) -> None:
    worker = await router.worker()
    worker.error = (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_TOO_LONG")
    stub = await someone(router)
    with pytest.raises(aio.AioRpcError) as refusal:
        await text_of(stub, infer())
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_of(refusal.value).reason == "CONTEXT_TOO_LONG"
    await idle(router)


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
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
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
    stub = await someone(router)
    reading = asyncio.create_task(text_of(stub, infer()))
    await hostile.called.wait()
    await router.worker()
    assert await reading == "Paris."


async def test_without_a_model_the_loaded_one_answers(router: RouterHarness) -> None:
    gemma = find_model("gemma-3-270m-q4_k_m").sha256 or ""
    worker = await router.worker(models=(gemma,))
    stub = await someone(router)
    await text_of(stub, inference_pb2.InferRequest(prompt="Hello"))
    assert worker.prompted[0].model.digest == gemma


async def test_a_model_can_be_named_as_in_the_catalogue(router: RouterHarness) -> None:
    worker = await router.worker()
    stub = await someone(router)
    named = inference_pb2.ModelReference(name="smollm2-135m-instruct.q4_1")
    await text_of(stub, inference_pb2.InferRequest(prompt="Hello", model=named))
    assert worker.prompted[0].model.digest == MODEL


async def test_prompts_of_evaluations_go_to_workers_for_evaluation(router: RouterHarness) -> None:
    chat = await router.worker(kinds=(router_pb2.WORKER_KIND_CHAT,))
    evaluating = await router.worker(kinds=(router_pb2.WORKER_KIND_EVALUATE,))
    await text_of(await router.stub(router.dataset), infer())
    assert (len(chat.prompted), len(evaluating.prompted)) == (0, 1)
    await text_of(await someone(router), infer())
    assert (len(chat.prompted), len(evaluating.prompted)) == (1, 1)


async def test_chat_asks_with_the_context_and_at_most_40_tokens(router: RouterHarness) -> None:
    worker = await router.worker()
    stub = await someone(router)
    request = router_pb2.ChatRequest(question="Where?", context="In Paris.", reference="c")
    responses = [response async for response in stub.Chat(request)]
    assert "".join(r.chunk.text for r in responses) == "Paris."
    assert responses[-1].complete.usage.completion_tokens == 2
    assert {r.reference for r in responses} == {"c"}
    asked = worker.prompted[0]
    assert asked.sampling.max_tokens == 40
    assert "In Paris." in asked.chat.messages[-1].content
    assert "Where?" in asked.chat.messages[-1].content


async def test_evaluate_grades_under_a_grammar_on_judges_only(router: RouterHarness) -> None:
    chat = await router.worker(kinds=(router_pb2.WORKER_KIND_CHAT,))
    judge = await router.worker(kinds=(router_pb2.WORKER_KIND_JUDGE,))
    judge.answers = ["1", "0"]
    stub = await someone(router)
    response = await stub.Evaluate(
        router_pb2.EvaluateRequest(question="Where?", expected_response="Paris", reference="e")
    )
    assert (response.score, response.reference) == (10, "e")
    assert response.provenance.worker == judge.address
    assert "10" in judge.prompted[0].sampling.grammar
    asked = judge.prompted[0].chat.messages[-1].content
    # The herd's own answer is graded where none is given; only the judge sees what is expected.
    assert "Paris." in asked
    assert "Paris" not in str(chat.prompted[0])


async def test_a_reply_that_is_no_grade_is_an_error_and_no_zero(router: RouterHarness) -> None:
    judge = await router.worker()
    judge.answers = ["great"]
    stub = await someone(router)
    with pytest.raises(aio.AioRpcError) as refusal:
        await stub.Evaluate(
            router_pb2.EvaluateRequest(question="?", expected_response="a", response="b")
        )
    assert error_of(refusal.value).reason == "ENGINE_FAILED"


async def test_a_full_queue_refuses_with_a_delay(tmp_path: Path) -> None:
    async with running_router(tmp_path, queue_units=10, caller_share=1.0) as router:
        stub = await router.stub(router.dataset)
        with pytest.raises(aio.AioRpcError) as refusal:
            await all_of(stub.ScoreChoices(scoring(11)))
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error_of(refusal.value).reason == "QUEUE_FULL"


async def test_every_violation_of_a_request_is_told(router: RouterHarness) -> None:
    stub = await router.stub(router.dataset)
    bad = scoring(3, multiplier="0.5")
    bad.questions[1].id = "q0"
    bad.questions[2].choices.append("")
    del bad.questions[0].choices[:]
    bad.reference = "r" * 129
    with pytest.raises(aio.AioRpcError) as refusal:
        await all_of(stub.ScoreChoices(bad))
    assert fields_of(refusal.value) == {
        "multiplier",
        "reference",
        "questions[0].choices",
        "questions[1].id",
        "questions[2].choices",
    }


@pytest.mark.parametrize("count", [0, 1001])
async def test_one_to_a_thousand_questions_are_taken(router: RouterHarness, count: int) -> None:
    stub = await router.stub(router.dataset)
    with pytest.raises(aio.AioRpcError) as refusal:
        await all_of(stub.ScoreChoices(scoring(count)))
    assert fields_of(refusal.value) == {"questions"}


async def test_an_unknown_model_is_refused_at_once(router: RouterHarness) -> None:
    request = scoring(1)
    request.model.digest = "0" * 64
    with pytest.raises(aio.AioRpcError) as refusal:
        await all_of((await router.stub(router.dataset)).ScoreChoices(request))
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    assert error_of(refusal.value).reason == "MODEL_NOT_FOUND"
    assert field_of(refusal.value) == "model.digest"

    named = inference_pb2.ModelReference(name="nobody's")
    with pytest.raises(aio.AioRpcError) as refusal:
        await text_of(
            await someone(router), inference_pb2.InferRequest(prompt="Hello", model=named)
        )
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    assert field_of(refusal.value) == "model.name"


async def test_a_default_model_that_is_unknown_is_no_field_of_the_callers(tmp_path: Path) -> None:
    async with running_router(tmp_path, chat_model="gone") as router:
        with pytest.raises(aio.AioRpcError) as refusal:
            await text_of(await someone(router), inference_pb2.InferRequest(prompt="Hello"))
        assert error_of(refusal.value).reason == "MODEL_NOT_FOUND"
        assert field_of(refusal.value) == "model"
        assert "gone" in (refusal.value.details() or "")
        judge = inference_pb2.ModelReference(digest=MODEL)
        with pytest.raises(aio.AioRpcError) as refusal:
            await (await someone(router)).Evaluate(
                router_pb2.EvaluateRequest(question="?", expected_response="!", model=judge)
            )
        assert field_of(refusal.value) == "model"


async def test_only_the_dataset_service_may_score(router: RouterHarness) -> None:
    with pytest.raises(aio.AioRpcError) as refusal:
        await all_of((await someone(router)).ScoreChoices(scoring(1)))
    assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_only_admitted_workers_join_and_only_for_what_they_are_admitted(
    router: RouterHarness,
) -> None:
    async with WorkerDouble.new() as worker:
        stub = await router.stub(worker.identity)
        with pytest.raises(aio.AioRpcError) as refusal:
            await worker.register(stub)
        assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await router.admit(worker, [router_pb2.WORKER_KIND_CHAT])
        await worker.register(stub)
        listed = await (await router.operator()).ListWorkers(router_pb2.ListWorkersRequest())
        assert list(listed.workers[0].kinds) == [router_pb2.WORKER_KIND_CHAT]
        with pytest.raises(aio.AioRpcError) as refusal:
            await worker.register(stub, kinds=(router_pb2.WORKER_KIND_JUDGE,))
        assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert field_of(refusal.value) == "kinds"
        assert "chat" in (refusal.value.details() or "")
        await router.admit(worker, [])
        with pytest.raises(aio.AioRpcError) as refusal:
            await stub.Heartbeat(router_pb2.HeartbeatRequest(generation=1))
        assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
        listed = await (await router.operator()).ListWorkers(router_pb2.ListWorkersRequest())
        assert not listed.workers


async def test_a_repeated_registration_keeps_its_generation_and_a_restart_gets_the_next(
    router: RouterHarness,
) -> None:
    worker = await router.unregistered_worker()
    stub = await router.stub(worker.identity)
    assert (await worker.register(stub, instance="a")).generation == 1
    assert (await worker.register(stub, instance="a")).generation == 1
    assert (await worker.register(stub, instance="b")).generation == 2
    with pytest.raises(aio.AioRpcError) as refusal:
        await stub.Heartbeat(router_pb2.HeartbeatRequest(generation=1))
    assert refusal.value.code() is grpc.StatusCode.ABORTED
    assert error_of(refusal.value).reason == "LEASE_LOST"
    assert field_of(refusal.value) == "generation"
    response = await stub.Heartbeat(router_pb2.HeartbeatRequest(generation=2))
    assert not response.draining
    await stub.UnregisterWorker(router_pb2.UnregisterWorkerRequest(generation=2))
    await stub.UnregisterWorker(router_pb2.UnregisterWorkerRequest(generation=2))
    assert (await worker.register(stub, instance="b")).generation == 3


async def test_a_lease_that_lapses_takes_the_worker_out(tmp_path: Path) -> None:
    async with running_router(tmp_path, lease_seconds=0.2, heartbeat_seconds=0.05) as router:
        worker = await router.worker()
        stub = await router.stub(worker.identity)
        operator = await router.operator()
        async with asyncio.timeout(30):
            while (await operator.GetStatistics(router_pb2.GetStatisticsRequest())).workers:
                pass
        with pytest.raises(aio.AioRpcError) as refusal:
            await stub.Heartbeat(router_pb2.HeartbeatRequest(generation=1))
        assert error_of(refusal.value).reason == "LEASE_LOST"


async def test_what_a_worker_says_of_itself_is_checked(router: RouterHarness) -> None:
    worker = await router.unregistered_worker()
    stub = await router.stub(worker.identity)
    with pytest.raises(aio.AioRpcError) as refusal:
        await stub.RegisterWorker(
            router_pb2.RegisterWorkerRequest(
                endpoint="nowhere", slots=2000, models=["x"], memory_bytes=-1
            )
        )
    assert fields_of(refusal.value) == {
        "endpoint",
        "kinds",
        "slots",
        "memory_bytes",
        "engine_build",
        "models[0]",
        "instance",
    }
    with pytest.raises(aio.AioRpcError) as refusal:
        await stub.Heartbeat(router_pb2.HeartbeatRequest(generation=1, models=["x"]))
    assert fields_of(refusal.value) == {"models[0]"}
    operator = await router.operator()
    with pytest.raises(aio.AioRpcError) as refusal:
        await operator.AdmitWorker(
            router_pb2.AdmitWorkerRequest(worker="nobody", kinds=[router_pb2.WORKER_KIND_CHAT])
        )
    assert fields_of(refusal.value) == {"worker"}
    with pytest.raises(aio.AioRpcError) as refusal:
        await operator.AdmitWorker(
            router_pb2.AdmitWorkerRequest(
                worker=worker.address, kinds=[router_pb2.WORKER_KIND_UNSPECIFIED]
            )
        )
    assert fields_of(refusal.value) == {"kinds"}


async def test_workers_are_listed_page_by_page(router: RouterHarness) -> None:
    addresses = sorted([(await router.worker()).address for _ in range(3)])
    operator = await router.operator()
    first = await operator.ListWorkers(router_pb2.ListWorkersRequest(page_size=2))
    second = await operator.ListWorkers(
        router_pb2.ListWorkersRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [w.address for w in [*first.workers, *second.workers]] == addresses
    assert not second.next_page_token
    for page in (
        router_pb2.ListWorkersRequest(page_size=1001),
        router_pb2.ListWorkersRequest(page_size=-1),
    ):
        with pytest.raises(aio.AioRpcError) as refusal:
            await operator.ListWorkers(page)
        assert fields_of(refusal.value) == {"page_size"}
    with pytest.raises(aio.AioRpcError) as refusal:
        await operator.ListWorkers(router_pb2.ListWorkersRequest(page_token="made up"))
    assert error_of(refusal.value).reason == "INVALID_PAGE_TOKEN"
    assert field_of(refusal.value) == "page_token"


async def test_others_than_the_operator_see_totals_only(router: RouterHarness) -> None:
    await router.worker(slots=3)
    stub = await someone(router)
    statistics = await stub.GetStatistics(router_pb2.GetStatisticsRequest())
    assert (statistics.workers, statistics.slots) == (1, 3)
    assert not statistics.worker_details
    with pytest.raises(aio.AioRpcError):
        await stub.ListWorkers(router_pb2.ListWorkersRequest())


async def test_inference_is_free(router: RouterHarness) -> None:
    stub = await router.stub(None)
    pricing = await stub.GetPricing(router_pb2.GetPricingRequest())
    assert (pricing.paid, pricing.base_fee, pricing.last_multiplier) == (False, "0", "1")


async def test_at_the_stop_every_stream_ends_with_an_error(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router:
        stub = await router.stub(router.dataset)
        call = stub.ScoreChoices(scoring(10))
        await anext(aiter(call))
        reading = asyncio.create_task(all_of(call))
        router.service.running.runtime.stopping.set()
        with pytest.raises(aio.AioRpcError) as refusal:
            await reading
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_only_admitted_workers_can_be_drained(router: RouterHarness) -> None:
    operator = await router.operator()
    unknown = Identity.generate().address
    with pytest.raises(aio.AioRpcError) as refusal:
        await operator.DrainWorker(router_pb2.DrainWorkerRequest(worker=unknown, drain=True))
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    assert error_of(refusal.value).reason == "WORKER_NOT_FOUND"
    assert field_of(refusal.value) == "worker"
    with pytest.raises(aio.AioRpcError) as refusal:
        await operator.DrainWorker(router_pb2.DrainWorkerRequest(worker="x", drain=True))
    assert fields_of(refusal.value) == {"worker"}


async def test_settings_admit_workers_too(tmp_path: Path) -> None:
    worker = WorkerDouble.new()
    async with worker, running_router(tmp_path, admitted_workers=worker.address) as router:
        response = await worker.register(await router.stub(worker.identity))
        assert response.generation == 1


async def test_metrics_tell_how_the_herd_stands(router: RouterHarness) -> None:
    await router.worker(slots=3)
    stub = await router.stub(router.dataset)
    await all_of(stub.ScoreChoices(scoring(40)))
    registry = router.service.running.runtime.metrics

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"evalpool_router_{name}", labels)

    assert value("requests_total", method="ScoreChoices") == 1
    assert value("active_requests", method="ScoreChoices") == 0
    assert value("questions_total") == 40
    assert value("computed_tokens_total") == 160
    assert value("stage_seconds_count", method="ScoreChoices", stage="queue") == 1
    assert value("stage_seconds_count", method="ScoreChoices", stage="first_result") == 1
    assert value("registrations_total") == 1
    async with asyncio.timeout(30):
        # Gauges are set on the clock's next tick; a call lets the loop get there.
        while value("slots") != 3 or value("busy_slots") or value("running"):
            await stub.GetPricing(router_pb2.GetPricingRequest())
    assert value("workers", state="ready") == 1

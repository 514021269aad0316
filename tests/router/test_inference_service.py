"""Infer, Chat and Evaluate over real gRPC, with workers that are doubles."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc import aio

from evalpool.inference.v1 import inference_pb2
from evalpool.models import find_model
from evalpool.router.v1 import router_pb2
from tests.router.router_harness import (
    MODEL,
    RouterHarness,
    all_of,
    error_of,
    field_of,
    idle,
    infer,
    running_router,
    scoring,
    someone,
    text_of,
)


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


async def test_without_a_worker_a_prompt_says_so_until_one_comes(tmp_path: Path) -> None:
    async with running_router(tmp_path, progress_seconds=0.05) as router:
        call = aiter((await someone(router)).Infer(infer()))
        for _ in range(2):
            response = await anext(call)
            assert response.reference == "mine"
            assert response.progress.reason_code == "NO_WORKER"
            assert "no worker of the herd takes work of the kind chat" in response.progress.stage
        await router.worker()
        rest = [response async for response in call]
        assert "".join(response.chunk.text for response in rest) == "Paris."
        assert rest[-1].HasField("complete")


async def test_a_prompt_that_waits_for_its_turn_or_for_its_worker_hears_nothing(
    tmp_path: Path,
) -> None:
    async with running_router(tmp_path, progress_seconds=0.01) as router:
        worker = await router.worker(slots=1)
        worker.open.clear()
        stub = await someone(router)
        at_work = asyncio.ensure_future(anext(aiter(stub.Infer(infer()))))
        await worker.reached.wait()
        in_the_queue = asyncio.ensure_future(anext(aiter(stub.Infer(infer()))))
        scoring_call = aiter((await router.stub(router.dataset)).ScoreChoices(scoring(1)))
        # Somebody else hears thrice meanwhile how it stands.
        for _ in range(3):
            await anext(scoring_call)
        assert not at_work.done()
        assert not in_the_queue.done()
        worker.open.set()
        for first in (at_work, in_the_queue):
            assert (await first).chunk.text == "Par"


async def test_a_chat_without_a_worker_sends_nothing_until_one_comes(tmp_path: Path) -> None:
    async with running_router(tmp_path, progress_seconds=0.01) as router:
        stub = await someone(router)
        call = aiter(stub.Infer(infer()))
        chatting = asyncio.ensure_future(
            anext(aiter(stub.Chat(router_pb2.ChatRequest(question="Where?"))))
        )
        for _ in range(3):
            assert (await anext(call)).HasField("progress")
        assert not chatting.done()
        await router.worker()
        assert (await chatting).chunk.text == "Par"


async def test_log_probabilities_are_asked_for_and_handed_on(router: RouterHarness) -> None:
    worker = await router.worker()
    stub = await someone(router)
    request = infer()
    request.sampling.logprobs = 2
    responses = [response async for response in stub.Infer(request)]
    assert worker.prompted[0].sampling.logprobs == 2
    told = [r.chunk.logprobs for r in responses[:-1]]
    assert [place.chosen.text for places in told for place in places] == ["Par", "is."]
    question = router_pb2.ChatRequest(question="Where?", sampling=request.sampling)
    chat = [response async for response in stub.Chat(question)]
    assert [r.chunk.logprobs for r in chat[:-1]] == told


async def test_a_conversations_template_goes_to_the_worker(router: RouterHarness) -> None:
    worker = await router.worker()
    message = inference_pb2.ChatMessage(role="user", content="Hello")
    request = infer()
    request.chat.CopyFrom(inference_pb2.Chat(messages=[message], template="{{ messages }}"))
    await text_of(await someone(router), request)
    assert worker.prompted[0].chat == request.chat


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


async def test_inference_is_free(router: RouterHarness) -> None:
    stub = await router.stub(None)
    pricing = await stub.GetPricing(router_pb2.GetPricingRequest())
    assert (pricing.paid, pricing.base_fee, pricing.last_multiplier) == (False, "0", "1")

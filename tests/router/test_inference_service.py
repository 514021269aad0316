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
    fields_of,
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


async def test_a_question_without_a_worker_for_chat_says_so_until_one_comes(tmp_path: Path) -> None:
    async with running_router(tmp_path, progress_seconds=0.05) as router:
        other = (router_pb2.WORKER_KIND_EVALUATE, router_pb2.WORKER_KIND_JUDGE)
        idle_worker = await router.worker(kinds=other)
        question = router_pb2.ChatRequest(question="Where?", reference="mine")
        call = aiter((await someone(router)).Chat(question))
        for _ in range(2):
            response = await anext(call)
            assert response.reference == "mine"
            assert response.progress.reason_code == "NO_WORKER"
            assert "no worker of the herd takes work of the kind chat" in response.progress.stage
        await router.worker(kinds=(router_pb2.WORKER_KIND_CHAT,))
        rest = [response async for response in call]
        assert "".join(response.chunk.text for response in rest) == "Paris."
        assert rest[-1].HasField("complete")
        assert not idle_worker.prompted


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


async def test_as_many_tokens_as_are_asked_for_answer_a_question(router: RouterHarness) -> None:
    worker = await router.worker()
    request = router_pb2.ChatRequest(question="Where?")
    request.sampling.max_tokens = 200
    request.sampling.seed = 5
    async for _ in (await someone(router)).Chat(request):
        pass
    assert worker.prompted[0].sampling == request.sampling


async def test_a_question_that_is_too_long_for_the_model_is_told_of_as_a_question(
    router: RouterHarness,
) -> None:
    worker = await router.worker()
    worker.error = (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_TOO_LONG")
    worker.violations = {"prompt": "has 9000 tokens; the model takes at most 8191"}
    with pytest.raises(aio.AioRpcError) as refusal:
        async for _ in (await someone(router)).Chat(router_pb2.ChatRequest(question="Where?")):
            pass
    assert error_of(refusal.value).reason == "CONTEXT_TOO_LONG"
    assert field_of(refusal.value) == "question"
    assert "9000 tokens" in (refusal.value.details() or "")


async def test_a_template_that_takes_no_system_turn_is_the_models_and_not_the_questions(
    router: RouterHarness,
) -> None:
    worker = await router.worker()
    worker.error = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    worker.violations = {"chat.messages": "can't be rendered: System role not supported"}
    with pytest.raises(aio.AioRpcError) as refusal:
        async for _ in (await someone(router)).Chat(router_pb2.ChatRequest(question="Where?")):
            pass
    assert fields_of(refusal.value) == {"model"}
    assert "System role not supported" in (refusal.value.details() or "")


async def test_a_grammar_that_does_not_parse_is_named_as_the_caller_gave_it(
    router: RouterHarness,
) -> None:
    worker = await router.worker()
    worker.error = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    worker.violations = {"sampling.grammar": "is not valid GBNF"}
    request = router_pb2.ChatRequest(question="Where?")
    request.sampling.grammar = "root ::= [a-"
    with pytest.raises(aio.AioRpcError) as refusal:
        async for _ in (await someone(router)).Chat(request):
            pass
    assert fields_of(refusal.value) == {"sampling.grammar"}


async def test_the_server_tells_the_models_and_the_judges_prompt_by_default(tmp_path: Path) -> None:
    digest = "1" * 64
    async with running_router(tmp_path, judge_model=digest) as router:
        info = await (await router.stub(None)).GetInfo(router_pb2.GetInfoRequest())
        model = find_model("SmolLM2-135M-Instruct.Q4_1")
        assert (info.chat_model.digest, info.chat_model.name) == (model.sha256, model.name)
        # Of a model that is not known here, what there is.
        assert (info.judge_model.digest, info.judge_model.name) == (digest, "")
        assert "{response}" in info.judge_prompt


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


async def test_inference_is_free(router: RouterHarness) -> None:
    stub = await router.stub(None)
    pricing = await stub.GetPricing(router_pb2.GetPricingRequest())
    assert (pricing.paid, pricing.base_fee, pricing.last_multiplier) == (False, "0", "1")

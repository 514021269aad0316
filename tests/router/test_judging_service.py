"""Evaluate over real gRPC: with workers that are doubles, and with real ones."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.models import ModelStore, find_model
from evalpool.router.v1 import router_pb2
from evalpool_runtime.testing import running
from evalpool_worker.service import SERVICE as WORKER
from tests.router.router_harness import (
    MODEL,
    RouterHarness,
    error_of,
    field_of,
    fields_of,
    running_router,
    someone,
)
from tests.worker.engine.scripted_server import (
    MODEL as SERVED,
)
from tests.worker.engine.scripted_server import (
    Asked,
    Connection,
    delta,
    scripted_server,
    usage,
)

CHAT, JUDGE = router_pb2.WORKER_KIND_CHAT, router_pb2.WORKER_KIND_JUDGE


def asked(**fields: Any) -> router_pb2.EvaluateRequest:
    return router_pb2.EvaluateRequest(question="Where?", expected_response="Paris", **fields)


async def refused(router: RouterHarness, request: router_pb2.EvaluateRequest) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as refusal:
        await (await someone(router)).Evaluate(request)
    return refusal.value


async def test_the_herds_own_answer_is_graded_where_none_is_given(router: RouterHarness) -> None:
    chat = await router.worker(kinds=(CHAT,))
    judge = await router.worker(kinds=(JUDGE,))
    judge.answers = ["1", "0"]
    graded = await (await someone(router)).Evaluate(asked(context="In France.", reference="e"))
    assert (graded.score, graded.reference, graded.response) == (10, "e", "Paris.")
    assert graded.provenance.worker == judge.address
    assert graded.usage.completion_tokens == 2 + 2
    turn = judge.prompted[0].chat.messages[-1].content
    for text in ("In France.", "Where?", "Expected answer: Paris\n", "Answer to grade: Paris."):
        assert text in turn
    # Only the judge sees what is expected.
    assert "Paris" not in str(chat.prompted[0])
    assert chat.prompted[0].sampling.max_tokens == 40


@pytest.mark.parametrize("response", ["", "London, {expected_response}"])
async def test_a_response_that_is_given_is_graded_as_it_is(
    router: RouterHarness, response: str
) -> None:
    chat = await router.worker(kinds=(CHAT,))
    judge = await router.worker(kinds=(JUDGE,))
    judge.answers = ["0"]
    graded = await (await someone(router)).Evaluate(asked(response=response))
    assert (graded.score, graded.response) == (0, response)
    assert not chat.prompted
    turn = judge.prompted[0].chat.messages[-1].content
    assert f"Answer to grade: {response}\n\n" in turn
    assert turn.count("Paris") == 1


async def test_a_grade_tells_what_gave_it(router: RouterHarness) -> None:
    judge = await router.worker()
    judge.answers = ["7"]
    stub = await someone(router)
    graded = await stub.Evaluate(asked(response="London", seed=11))
    info = await stub.GetInfo(router_pb2.GetInfoRequest())
    assert graded.prompt_digest == hashlib.sha256(info.judge_prompt.encode()).hexdigest()
    assert graded.seed == 11
    assert graded.provenance.model_digest == info.judge_model.digest == MODEL
    sampling = judge.prompted[0].sampling
    assert (sampling.temperature, sampling.seed) == (0.0, 11)
    assert sampling.grammar
    assert sampling.grammar in info.judge_prompt


async def test_any_model_may_be_the_judge(router: RouterHarness) -> None:
    gemma = find_model("gemma-3-270m-q4_k_m")
    judge = await router.worker()
    judge.answers = ["3"]
    named = inference_pb2.ModelReference(name=gemma.name)
    graded = await (await someone(router)).Evaluate(asked(response="London", model=named))
    assert graded.provenance.model_digest == gemma.sha256


@pytest.mark.parametrize("answers", [[], ["great"], ["11"], ["7", " of 10"]])
async def test_a_reply_that_is_no_grade_is_an_error_and_no_zero(
    router: RouterHarness, answers: list[str]
) -> None:
    judge = await router.worker()
    judge.answers = answers
    error = await refused(router, asked(response="London"))
    assert error_of(error).reason == "ENGINE_FAILED"
    assert field_of(error) == "model"
    assert "grammar" in (error.details() or "")


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        (inference_pb2.FINISH_REASON_LENGTH, "ENGINE_FAILED"),
        (inference_pb2.FINISH_REASON_CANCELLED, "WORKER_LOST"),
    ],
)
async def test_a_reply_that_was_cut_off_is_no_grade(
    router: RouterHarness, finish: inference_pb2.FinishReason.ValueType, reason: str
) -> None:
    judge = await router.worker()
    judge.answers, judge.finish = ["1"], finish
    assert error_of(await refused(router, asked(response="London"))).reason == reason


async def test_without_a_judge_a_grade_waits_and_ends_by_the_deadline(tmp_path: Path) -> None:
    async with running_router(tmp_path, infer_seconds=0.3) as router:
        await router.worker(kinds=(CHAT, router_pb2.WORKER_KIND_EVALUATE))
        error = await refused(router, asked(response="London"))
        assert error_of(error).reason == "NO_WORKER"
        assert "the kind judge" in (error.details() or "")


async def test_a_judge_that_is_unknown_is_refused_by_its_field(router: RouterHarness) -> None:
    named = inference_pb2.ModelReference(digest="0" * 64)
    error = await refused(router, asked(response="London", model=named))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert field_of(error) == "model.digest"


async def test_a_default_that_is_unknown_is_no_field_of_the_callers(tmp_path: Path) -> None:
    async with running_router(tmp_path, chat_model="gone") as router:
        judge = inference_pb2.ModelReference(digest=MODEL)
        error = await refused(router, asked(model=judge))
        assert error_of(error).reason == "MODEL_NOT_FOUND"
        assert field_of(error) == "model"


Worker = Callable[..., Any]


@pytest.fixture
def worker(
    router: RouterHarness, tmp_path: Path, model_store: ModelStore, smollm2_path: Path
) -> Worker:
    """Runs a real worker of the herd."""

    @asynccontextmanager
    async def run(**settings: Any) -> AsyncIterator[None]:
        key = Identity.generate()
        operator = await router.operator()
        await operator.AdmitWorker(
            router_pb2.AdmitWorkerRequest(worker=key.address, kinds=[CHAT, JUDGE])
        )
        async with running(
            WORKER,
            tmp_path / "worker",
            identity=key,
            router_endpoint=router.service.endpoint,
            router_address=router.service.address,
            models_dir=model_store.root,
            **settings,
        ):
            yield

    return run


async def test_a_grammar_holds_the_reply(router: RouterHarness, worker: Worker) -> None:
    async with worker(engine="fake"):
        stub = await someone(router)
        for number in range(20):
            response = f"An answer that no one would grade by a number, {number}."
            assert 0 <= (await stub.Evaluate(asked(response=response))).score <= 10


async def test_texts_that_do_not_fit_the_judge_are_told_of_as_the_callers(
    router: RouterHarness, worker: Worker
) -> None:
    async with worker(engine="fake"):
        error = await refused(router, asked(response="word " * 5000))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error_of(error).reason == "CONTEXT_TOO_LONG"
        assert field_of(error) == "question"
        assert "tokens" in (error.details() or "")


@pytest.mark.parametrize("events", [[delta("", "stop")], [delta("Grade: "), delta("8", "stop")]])
async def test_a_server_that_does_not_apply_grammars_gives_no_grade(
    router: RouterHarness, worker: Worker, events: list[dict[str, Any]]
) -> None:
    async def answer(_: Asked, connection: Connection) -> None:
        await connection.stream(*events, usage(7, 2), "[DONE]")

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(scripted_server())
        server.answer = answer
        await stack.enter_async_context(
            worker(
                engine="openai",
                openai_url=server.url,
                openai_model=SERVED,
                openai_dialect="llama_cpp",
                openai_digest=MODEL,
            )
        )
        async with asyncio.timeout(60):
            error = await refused(router, asked(response="London"))
    assert error_of(error).reason == "ENGINE_FAILED"
    assert "workers whose engine applies grammars" in (error.details() or "")
    assert server.asked[-1].body["grammar"].startswith("root ::=")


async def test_a_worker_that_refuses_grammars_is_not_the_callers_mistake(
    router: RouterHarness,
) -> None:
    judge = await router.worker()
    judge.error = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    judge.violations = {"sampling.grammar": "is not known to this worker's server"}
    error = await refused(router, asked(response="London"))
    assert (error.code(), error_of(error).reason) == (grpc.StatusCode.INTERNAL, "ENGINE_FAILED")
    judge.violations = {"chat.messages": "can't be rendered: System role not supported"}
    assert fields_of(await refused(router, asked(response="London"))) == {"model"}

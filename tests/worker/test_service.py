"""The worker over real gRPC, on the real engine with a real model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import llama_cpp
import pytest

from evalpool.inference.v1 import inference_pb2
from evalpool.models import ModelStore
from evalpool.worker.v1 import worker_pb2, worker_pb2_grpc
from evalpool_runtime.testing import ServiceUnderTest, running
from evalpool_worker.service import SERVICE
from tests.worker.service_calls import questions, refusal

if TYPE_CHECKING:
    Stub = worker_pb2_grpc.WorkerServiceAsyncStub


async def test_every_question_is_scored_once_and_the_stream_ends_with_complete(
    stub: Stub, smollm2: inference_pb2.ModelReference, worker: ServiceUnderTest
) -> None:
    request = inference_pb2.ScoreChoicesRequest(
        model=smollm2, questions=questions(20), reference="r1"
    )
    messages = [
        message
        async for message in stub.ScoreChoices(request, metadata=(("x-evalpool-dispatch", "7"),))
    ]

    results = [r for m in messages for r in m.results.results]
    assert sorted(int(r.id) for r in results) == list(range(20))
    assert all(len(r.scores) == 3 and all(s.sum_logprob < 0 for s in r.scores) for r in results)
    assert {r.provenance.model_digest for r in results} == {smollm2.digest}
    assert {r.provenance.dispatch for r in results} == {7}
    assert {r.provenance.worker for r in results} == {worker.address}
    assert {m.reference for m in messages} == {"r1"}
    assert messages[-1].complete.scored == 20
    assert messages[-1].complete.failed == 0


async def test_a_text_is_streamed_and_ends_with_usage(
    stub: Stub, smollm2: inference_pb2.ModelReference
) -> None:
    request = inference_pb2.InferRequest(
        model=smollm2,
        chat=inference_pb2.Chat(
            messages=[inference_pb2.ChatMessage(role="user", content="Name a colour.")]
        ),
        sampling=inference_pb2.Sampling(max_tokens=12),
    )
    first = [message async for message in stub.Infer(request)]
    again = [message async for message in stub.Infer(request)]

    text = "".join(m.chunk.text for m in first)
    assert text
    assert text == "".join(m.chunk.text for m in again)
    assert first[-1].WhichOneof("event") == "complete"
    assert 1 <= first[-1].complete.usage.completion_tokens <= 12


async def test_log_probabilities_come_with_the_text(
    stub: Stub, smollm2: inference_pb2.ModelReference
) -> None:
    request = inference_pb2.InferRequest(
        model=smollm2,
        prompt="The capital of France is",
        sampling=inference_pb2.Sampling(max_tokens=3, logprobs=2),
    )
    *chunks, end = [message async for message in stub.Infer(request)]
    places = [place for message in chunks for place in message.chunk.logprobs]
    assert len(places) == end.complete.usage.completion_tokens == 3
    assert [len(message.chunk.logprobs) for message in chunks] == [
        message.chunk.tokens for message in chunks
    ]
    text = "".join(message.chunk.text for message in chunks)
    assert b"".join(place.chosen.piece for place in places).decode() == text
    assert all(place.likeliest[0] == place.chosen and place.chosen.logprob < 0 for place in places)
    assert "Paris" in {token.text.strip() for token in places[0].likeliest}


async def test_answers_tell_how_many_layers_a_gpu_computed(
    tmp_path: Path,
    model_store: ModelStore,
    smollm2: inference_pb2.ModelReference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: True)
    request = inference_pb2.InferRequest(
        model=smollm2, prompt="Hello", sampling=inference_pb2.Sampling(max_tokens=1)
    )
    async with (
        running(SERVICE, tmp_path, models_dir=model_store.root, gpu_layers=5) as worker,
        worker.channel(worker.operator) as channel,
    ):
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        *_, end = [message async for message in stub.Infer(request)]
    assert end.complete.provenance.gpu_layers == 5


async def test_a_cancelled_request_gives_its_slot_back(
    stub: Stub, smollm2: inference_pb2.ModelReference
) -> None:
    long = inference_pb2.InferRequest(
        model=smollm2, prompt="Once", sampling=inference_pb2.Sampling(max_tokens=2000)
    )
    for _ in range(3):
        calls = [stub.Infer(long) for _ in range(4)]
        for call in calls:
            await call.read()
            call.cancel()
        # The server notices a cancellation a moment after the client has made it.
        short = inference_pb2.InferRequest(
            model=smollm2, prompt="Once", sampling=inference_pb2.Sampling(max_tokens=1)
        )
        async with asyncio.timeout(30):
            while True:
                try:
                    messages = [m async for m in stub.Infer(short)]
                    break
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
        assert messages[-1].HasField("complete")


async def test_a_deadline_that_passes_gives_the_slot_back(
    stub: Stub, smollm2: inference_pb2.ModelReference
) -> None:
    async for _ in stub.LoadModel(worker_pb2.LoadModelRequest(model=smollm2)):
        pass
    # Ends with nothing but "la".
    endless = inference_pb2.Sampling(max_tokens=8000, grammar='root ::= ("la ")+ "."')
    long = inference_pb2.InferRequest(model=smollm2, prompt="la la la", sampling=endless)
    errors = await asyncio.gather(*(refusal(stub.Infer(long, timeout=1)) for _ in range(4)))
    assert {error.code for error in errors} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    async with asyncio.timeout(30):
        while (await stub.ListModels(worker_pb2.ListModelsRequest())).models[0].in_use:
            pass
    short = inference_pb2.InferRequest(
        model=smollm2, prompt="Once", sampling=inference_pb2.Sampling(max_tokens=1)
    )
    assert [m async for m in stub.Infer(short)][-1].HasField("complete")


async def test_loading_shows_its_stages_and_unloading_frees(
    stub: Stub, smollm2: inference_pb2.ModelReference
) -> None:
    messages = [m async for m in stub.LoadModel(worker_pb2.LoadModelRequest(model=smollm2))]
    assert messages[-1].loaded.digest == smollm2.digest
    assert messages[-1].loaded.quantisation == "Q4_1"

    await stub.UnloadModel(worker_pb2.UnloadModelRequest(digest=smollm2.digest))

    models = (await stub.ListModels(worker_pb2.ListModelsRequest())).models
    assert [m.loaded for m in models if m.digest == smollm2.digest] == [False]


async def test_settings_made_by_calls_outlive_a_restart(
    tmp_path: Path, model_store: ModelStore, smollm2: inference_pb2.ModelReference
) -> None:
    async def run_once(change: bool) -> int:
        async with (
            running(SERVICE, tmp_path, models_dir=model_store.root) as worker,
            worker.channel(worker.operator) as channel,
        ):
            stub = worker_pb2_grpc.WorkerServiceStub(channel)
            if change:
                await stub.SetMaxTokens(worker_pb2.SetMaxTokensRequest(max_tokens=3))
            request = inference_pb2.InferRequest(model=smollm2, prompt="Once upon a time")
            messages = [m async for m in stub.Infer(request)]
            return messages[-1].complete.usage.completion_tokens

    assert await run_once(change=True) == 3
    assert await run_once(change=False) == 3

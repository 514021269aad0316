"""The worker over real gRPC, on the real engine with a real model."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import llama_cpp
import pytest

from evalpool.errors import CallError
from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.models import ModelStore
from evalpool.worker.v1 import worker_pb2, worker_pb2_grpc
from evalpool_runtime.testing import ServiceUnderTest, running
from evalpool_worker.service import SERVICE

ROUTER = Identity.generate()

if TYPE_CHECKING:
    Stub = worker_pb2_grpc.WorkerServiceAsyncStub


@pytest.fixture
async def worker(tmp_path: Path, model_store: ModelStore) -> AsyncIterator[ServiceUnderTest]:
    async with running(
        SERVICE,
        tmp_path,
        models_dir=model_store.root,
        admitted_routers=ROUTER.address,
        slots=4,
    ) as service:
        yield service


@pytest.fixture
async def stub(worker: ServiceUnderTest) -> AsyncIterator[Stub]:
    async with worker.channel(ROUTER) as channel:
        yield worker_pb2_grpc.WorkerServiceStub(channel)


@pytest.fixture
def smollm2(smollm2_path: Path) -> inference_pb2.ModelReference:
    return inference_pb2.ModelReference(digest=smollm2_path.name, name="SmolLM2")


def questions(count: int) -> list[inference_pb2.ChoiceQuestion]:
    return [
        inference_pb2.ChoiceQuestion(
            id=str(n),
            prompt=f"Q: Sam's friend number {n} fell. What will Sam do next?\nA:",
            choices=[" help the friend up", " eat the sun", " go"],
        )
        for n in range(count)
    ]


async def refusal(call: AsyncIterable[object]) -> CallError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return CallError.of(caught.value)


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


async def test_a_models_hostile_template_fails_its_own_conversations_alone(
    tmp_path: Path,
    smollm2_path: Path,
    with_template: Callable[[str], Path],
) -> None:
    loops = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    store = ModelStore(tmp_path / "models")
    hostile = store.put_file(with_template(loops))
    good = store.put_file(smollm2_path)

    def hello(digest: str) -> inference_pb2.InferRequest:
        return inference_pb2.InferRequest(
            model=inference_pb2.ModelReference(digest=digest),
            chat=inference_pb2.Chat(
                messages=[inference_pb2.ChatMessage(role="user", content="Hello")]
            ),
            sampling=inference_pb2.Sampling(max_tokens=4),
        )

    async with (
        running(SERVICE, tmp_path / "worker", models_dir=store.root) as worker,
        worker.channel(worker.operator) as channel,
    ):
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        refused = asyncio.create_task(refusal(stub.Infer(hello(hostile))))
        messages = [message async for message in stub.Infer(hello(good))]
        error = await refused
        # Without its template the model is as good as any.
        plain = inference_pb2.InferRequest(
            model=inference_pb2.ModelReference(digest=hostile), prompt="Hello"
        )
        others = [message async for message in stub.Infer(plain)]

    assert messages[-1].HasField("complete")
    assert others[-1].HasField("complete")
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_FIELD"
    assert "chat template more than 1 s" in error.message
    assert [violation.field for violation in error.violations] == ["chat.messages"]


async def test_a_template_that_comes_with_a_request_renders_it_or_is_refused_by_its_field(
    stub: Stub, smollm2: inference_pb2.ModelReference
) -> None:
    def asked(template: str) -> inference_pb2.InferRequest:
        return inference_pb2.InferRequest(
            model=smollm2,
            chat=inference_pb2.Chat(
                messages=[inference_pb2.ChatMessage(role="user", content="France")],
                template=template,
            ),
            sampling=inference_pb2.Sampling(max_tokens=3),
        )

    template = "The capital of {{ messages[0].content }} is"
    text = "".join([message.chunk.text async for message in stub.Infer(asked(template))])
    assert "Paris" in text
    error = await refusal(stub.Infer(asked("{% if %}")))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_FIELD"
    assert [violation.field for violation in error.violations] == ["chat.template"]


async def test_a_grammar_that_takes_too_much_is_refused_by_its_field(
    stub: Stub, smollm2: inference_pb2.ModelReference
) -> None:
    doubling = 'root ::= "-" root x | "-" root y | "-"\nx ::= "x"\ny ::= "y"'
    request = inference_pb2.InferRequest(
        model=smollm2,
        prompt="- - - - -",
        sampling=inference_pb2.Sampling(max_tokens=200, grammar=doubling),
    )
    error = await refusal(stub.Infer(request))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_FIELD"
    assert [violation.field for violation in error.violations] == ["sampling.grammar"]
    assert "is too ambiguous" in error.message


async def test_only_admitted_routers_and_the_operator_may_call(
    worker: ServiceUnderTest, smollm2: inference_pb2.ModelReference
) -> None:
    request = inference_pb2.ScoreChoicesRequest(model=smollm2, questions=questions(1))
    async with worker.channel(Identity.generate()) as channel:
        error = await refusal(worker_pb2_grpc.WorkerServiceStub(channel).ScoreChoices(request))
    assert error.code is grpc.StatusCode.PERMISSION_DENIED
    assert error.reason == "NOT_ALLOWED"

    async with worker.channel(worker.operator) as channel:
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        messages = [m async for m in stub.ScoreChoices(request)]
    assert messages[-1].complete.scored == 1


async def test_one_request_above_the_slots_is_refused_as_worker_busy(
    stub: Stub, smollm2: inference_pb2.ModelReference
) -> None:
    request = inference_pb2.InferRequest(
        model=smollm2, prompt="Once", sampling=inference_pb2.Sampling(max_tokens=2000)
    )
    calls = [stub.Infer(request) for _ in range(4)]
    for call in calls:
        await call.read()

    error = await refusal(stub.Infer(request))

    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.reason == "WORKER_BUSY"
    assert error.retry_after is not None
    for call in calls:
        call.cancel()


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


async def test_what_does_not_fit_the_models_own_context_is_the_questions_fault(
    stub: Stub, smollm2: inference_pb2.ModelReference
) -> None:
    # SmolLM2 was trained on 8,192 tokens.
    long = "word " * 8192
    error = await refusal(stub.Infer(inference_pb2.InferRequest(model=smollm2, prompt=long)))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "CONTEXT_TOO_LONG"
    assert re.match(r"prompt: has \d+ tokens; the model takes at most 8191$", error.message)

    request = inference_pb2.ScoreChoicesRequest(
        model=smollm2,
        questions=[
            inference_pb2.ChoiceQuestion(id="long", prompt=long, choices=[" yes", " no"]),
            inference_pb2.ChoiceQuestion(id="same", prompt="So?", choices=[" yes", " yes"]),
            *questions(1),
        ],
    )
    messages = [message async for message in stub.ScoreChoices(request)]
    failures = {
        r.id: r.failure for m in messages for r in m.results.results if r.HasField("failure")
    }
    assert {id: failure.reason_code for id, failure in failures.items()} == {
        "long": "CONTEXT_TOO_LONG",
        "same": "INVALID_FIELD",
    }
    assert not any(failure.retryable for failure in failures.values())
    assert messages[-1].complete.scored == 1
    assert messages[-1].complete.failed == 2


async def test_an_unknown_model_without_a_source_fails_with_its_reason(stub: Stub) -> None:
    request = inference_pb2.ScoreChoicesRequest(
        model=inference_pb2.ModelReference(digest="ab" * 32, sources=["herd:"]),
        questions=questions(1),
    )

    error = await refusal(stub.ScoreChoices(request))

    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert error.reason == "MODEL_FETCH_FAILED"


async def test_a_file_that_is_no_gguf_is_refused_when_it_is_loaded(
    stub: Stub, model_store: ModelStore, tmp_path: Path
) -> None:
    path = tmp_path / "junk.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 4096)
    digest = model_store.put_file(path)
    try:
        error = await refusal(
            stub.LoadModel(
                worker_pb2.LoadModelRequest(model=inference_pb2.ModelReference(digest=digest))
            )
        )
    finally:
        model_store.remove(digest)

    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert error.reason == "MODEL_LOAD_FAILED"


@pytest.mark.parametrize(
    ("content", "digest", "reason"),
    [
        ("whole", "ab" * 32, "DIGEST_MISMATCH"),
        ("truncated", "", "INVALID_GGUF"),
        ("text", "", "INVALID_GGUF"),
        ("missing", "ab" * 32, "MODEL_FETCH_FAILED"),
    ],
)
async def test_a_source_that_is_not_what_it_should_be_is_refused_with_its_reason(
    tmp_path: Path, smollm2_path: Path, content: str, digest: str, reason: str
) -> None:
    folder = tmp_path / "sources"
    folder.mkdir()
    path = folder / "model.gguf"
    whole = smollm2_path.read_bytes()
    match content:
        case "whole":
            path.write_bytes(whole)
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "text":
            path.write_text("no model at all")
    wanted = digest or hashlib.sha256(path.read_bytes()).hexdigest()
    async with (
        running(SERVICE, tmp_path / "worker", file_roots=str(folder)) as worker,
        worker.channel(worker.operator) as channel,
    ):
        request = inference_pb2.ScoreChoicesRequest(
            model=inference_pb2.ModelReference(digest=wanted, sources=[f"file:{path}"]),
            questions=questions(1),
        )
        error = await refusal(worker_pb2_grpc.WorkerServiceStub(channel).ScoreChoices(request))
        assert error.code is grpc.StatusCode.FAILED_PRECONDITION
        assert error.reason == reason
        assert error.message.startswith("model.digest: ")
        assert not ModelStore(tmp_path / "worker" / "models").has(wanted)


async def test_all_violations_of_a_request_are_told_at_once(stub: Stub) -> None:
    request = inference_pb2.ScoreChoicesRequest(
        model=inference_pb2.ModelReference(digest="short"),
        questions=[
            inference_pb2.ChoiceQuestion(id="a", prompt="x", choices=["y"]),
            inference_pb2.ChoiceQuestion(id="a", prompt="x", choices=["", "y"]),
        ],
    )

    error = await refusal(stub.ScoreChoices(request))

    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert {v.field for v in error.violations} == {
        "model.digest",
        "questions[1].id",
        "questions[1].choices",
    }


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

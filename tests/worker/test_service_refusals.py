"""What a worker refuses, over real gRPC, and by which reason."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.models import ModelStore
from evalpool.worker.v1 import worker_pb2, worker_pb2_grpc
from evalpool_runtime.testing import ServiceUnderTest, running
from evalpool_worker.service import SERVICE
from tests.worker.service_calls import questions, refusal

if TYPE_CHECKING:
    Stub = worker_pb2_grpc.WorkerServiceAsyncStub


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

"""A worker whose engine asks a server, over real gRPC and real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from evalpool.errors import CallError
from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.worker.v1 import worker_pb2, worker_pb2_grpc
from evalpool_runtime.settings import InvalidSettings
from evalpool_runtime.start import CannotStart
from evalpool_runtime.testing import running
from evalpool_worker.service import SERVICE
from evalpool_worker.settings import WorkerSettings
from tests.worker.engine.scripted_server import (
    MODEL,
    Asked,
    Connection,
    ScriptedServer,
    piece,
    scripted_server,
    usage,
)

if TYPE_CHECKING:
    Stub = worker_pb2_grpc.WorkerServiceAsyncStub

ROUTER = Identity.generate()
DIGEST = "ab" * 32
OTHER = "cd" * 32
KEY = "sk-of-the-operator"


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as scripted:
        yield scripted


@pytest.fixture
def told(server: ScriptedServer) -> dict[str, Any]:
    """The settings of a worker that asks the server."""
    return {
        "engine": "openai",
        "openai_url": server.url,
        "openai_model": MODEL,
        "openai_digest": DIGEST,
    }


@pytest.fixture
async def stub(tmp_path: Path, told: dict[str, Any]) -> AsyncIterator[Stub]:
    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")
    async with AsyncExitStack() as stack:
        worker = await stack.enter_async_context(
            running(
                SERVICE,
                tmp_path,
                admitted_routers=ROUTER.address,
                openai_key_file=key_file,
                **told,
            )
        )
        channel = await stack.enter_async_context(worker.channel(ROUTER))
        yield worker_pb2_grpc.WorkerServiceStub(channel)


def request(digest: str = DIGEST) -> inference_pb2.InferRequest:
    return inference_pb2.InferRequest(
        model=inference_pb2.ModelReference(digest=digest), prompt="Hello"
    )


async def refusal(call: Any) -> tuple[grpc.StatusCode, CallError]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value.code(), CallError.of(caught.value)


async def test_an_answer_names_the_digest_as_vouched_and_the_build_that_is_told_beforehand(
    stub: Stub, server: ScriptedServer
) -> None:
    async def answer(_: Asked, connection: Connection) -> None:
        await connection.stream(piece("Hi"), piece(" there", "stop"), usage(3, 2), "[DONE]")

    server.answer = answer
    *chunks, end = [message async for message in stub.Infer(request())]
    assert "".join(message.chunk.text for message in chunks) == "Hi there"
    origin = end.complete.provenance
    assert (origin.model_digest, origin.vouched, origin.engine) == (DIGEST, True, "openai")
    assert (end.complete.usage.prompt_tokens, end.complete.usage.completion_tokens) == (3, 2)
    info = await stub.GetInfo(worker_pb2.GetInfoRequest())
    assert origin.engine_build == info.engine_build
    assert server.asked[-1].headers["authorization"] == f"Bearer {KEY}"


async def test_another_model_is_left_to_others(stub: Stub) -> None:
    code, error = await refusal(stub.Infer(request(OTHER)))
    assert (code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_FETCH_FAILED")
    assert DIGEST in str(error)


async def test_a_busy_server_is_a_busy_worker(stub: Stub, server: ScriptedServer) -> None:
    async def busy(_: Asked, connection: Connection) -> None:
        await connection.whole(429, {}, retry_after="3")

    server.answer = busy
    code, error = await refusal(stub.Infer(request()))
    assert (code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "WORKER_BUSY")
    assert error.retry_after == 3.0


async def test_a_server_that_is_not_there_is_told_and_found_when_it_comes(
    server: ScriptedServer, tmp_path: Path, told: dict[str, Any]
) -> None:
    server.listed = (500, b"")
    async with (
        running(SERVICE, tmp_path, admitted_routers=ROUTER.address, **told) as worker,
        worker.channel(ROUTER) as channel,
    ):
        stub: Stub = worker_pb2_grpc.WorkerServiceStub(channel)
        code, error = await refusal(stub.Infer(request()))
        assert (code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_LOAD_FAILED")
        server.listed = (200, {"data": [{"id": MODEL}]})

        async def answer(_: Asked, connection: Connection) -> None:
            await connection.stream(piece("Hi", "stop"), "[DONE]")

        server.answer = answer
        assert [message async for message in stub.Infer(request())]


async def test_its_model_is_listed_and_not_to_be_unloaded(stub: Stub) -> None:
    [_] = [
        m
        async for m in stub.LoadModel(
            worker_pb2.LoadModelRequest(model=inference_pb2.ModelReference(digest=DIGEST))
        )
    ]
    listed = await stub.ListModels(worker_pb2.ListModelsRequest())
    assert [(model.digest, model.name, model.loaded) for model in listed.models] == [
        (DIGEST, MODEL, True)
    ]
    with pytest.raises(grpc.aio.AioRpcError, match="not to be unloaded"):
        await stub.UnloadModel(worker_pb2.UnloadModelRequest(digest=DIGEST))


async def test_cancelling_a_call_closes_the_servers_request(
    stub: Stub, server: ScriptedServer
) -> None:
    closed = asyncio.Event()

    async def answer(_: Asked, connection: Connection) -> None:
        await connection.stream(piece("Hi"))
        await connection.closed()
        closed.set()

    server.answer = answer
    call = stub.Infer(request())
    await anext(aiter(call))
    call.cancel()
    await closed.wait()


def test_scoring_is_not_offered(told: dict[str, Any]) -> None:
    grammars = told | {"openai_dialect": "vllm"}
    assert WorkerSettings.load(**grammars).offered_kinds == ("chat", "judge")
    assert WorkerSettings.load(**grammars, kinds="judge").offered_kinds == ("judge",)
    assert WorkerSettings.load().offered_kinds == ("evaluate", "chat", "judge")
    with pytest.raises(InvalidSettings, match="leave out evaluate"):
        WorkerSettings.load(**told, kinds="evaluate,chat")


def test_it_takes_its_servers_model_alone_and_other_engines_take_any(told: dict[str, Any]) -> None:
    assert WorkerSettings(**told).only_models == (DIGEST,)
    assert WorkerSettings(**told | {"engine": "fake"}).only_models == ()


def test_judging_is_offered_only_where_the_server_takes_grammars(told: dict[str, Any]) -> None:
    assert WorkerSettings.load(**told).offered_kinds == ("chat",)
    with pytest.raises(InvalidSettings, match="leave out judge"):
        WorkerSettings.load(**told, kinds="chat,judge")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"openai_url": ""}, r"--openai-url .*: it is empty"),
        ({"openai_model": ""}, r"--openai-model .*: it is empty"),
        ({"openai_digest": ""}, r"--openai-digest .*: it is empty"),
        ({"openai_digest": "abc"}, r"--openai-digest .*is no digest"),
        ({"openai_url": "127.0.0.1:8000"}, r"--openai-url .*give a URL"),
        ({"openai_url": "http://me:secret@127.0.0.1/v1"}, r"--openai-url .*leave out user"),
        ({"openai_key": KEY, "openai_key_file": "key"}, r"--openai-key .*there is a key file too"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(
    told: dict[str, Any], changed: dict[str, str], sentence: str
) -> None:
    with pytest.raises(InvalidSettings, match=sentence) as refused:
        WorkerSettings.load(**(told | changed))
    assert "secret" not in str(refused.value)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"", b"two\nlines", b"\xff\xfe"])
async def test_a_key_file_that_holds_no_key_is_refused_at_the_start(
    tmp_path: Path, told: dict[str, Any], content: bytes | None
) -> None:
    key_file = tmp_path / "key"
    if content is not None:
        key_file.write_bytes(content)
    with pytest.raises(CannotStart, match="--openai-key"):
        async with running(SERVICE, tmp_path, openai_key_file=key_file, **told):
            pass


def test_the_settings_do_not_show_the_key(told: dict[str, Any]) -> None:
    assert KEY not in repr(WorkerSettings.load(**told, openai_key=KEY))

"""Uploading, finding and downloading models over real gRPC."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc import aio

from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool_router.catalogue import catalogue_models
from tests.evalpool.models.gguf_writer import Gguf
from tests.router.router_harness import (
    RouterHarness,
    error_of,
    field_of,
    fields_of,
    running_router,
)

CONTENT = Gguf().to_bytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()


async def messages(
    content: bytes = CONTENT, *, offset: int = 0, digest: str = DIGEST
) -> AsyncIterator[router_pb2.UploadModelRequest]:
    yield router_pb2.UploadModelRequest(
        header=router_pb2.UploadHeader(
            digest=digest, size_bytes=len(content), name="tiny", offset=offset
        )
    )
    for at in range(offset, len(content), 200):
        yield router_pb2.UploadModelRequest(chunk=content[at : at + 200])


async def download(
    stub: router_pb2_grpc.RouterServiceAsyncStub, offset: int = 0
) -> tuple[int, bytes]:
    request = router_pb2.DownloadModelRequest(digest=DIGEST, offset=offset)
    responses = [response async for response in stub.DownloadModel(request)]
    return responses[0].size_bytes, b"".join(response.chunk for response in responses)


async def test_a_model_is_uploaded_found_run_and_fetched_by_workers(
    router: RouterHarness,
) -> None:
    owner = await router.stub(Identity.generate())
    stored = await owner.UploadModel(messages())
    assert (stored.model.digest, stored.existed) == (DIGEST, False)
    again = await owner.UploadModel(messages())
    assert again.existed
    upload = await owner.GetUpload(router_pb2.GetUploadRequest(digest=DIGEST))
    assert (upload.offset, upload.complete) == (len(CONTENT), True)
    found = await owner.GetModel(router_pb2.GetModelRequest(model="tiny"))
    assert found.model == stored.model
    assert found.model.HasField("create_time")

    worker = await router.worker()
    request = inference_pb2.InferRequest(
        model=inference_pb2.ModelReference(digest=DIGEST), prompt="Hello"
    )
    assert [response async for response in owner.Infer(request)]
    assert list(worker.prompted[0].model.sources) == [f"herd:{DIGEST}"]
    fetching = await router.stub(worker.identity)
    assert await download(fetching) == (len(CONTENT), CONTENT)
    assert await download(fetching, 500) == (len(CONTENT), CONTENT[500:])
    assert await download(owner) == (len(CONTENT), CONTENT)


async def test_a_repeated_upload_gets_its_first_answer_and_its_token_brings_nothing_else(
    router: RouterHarness,
) -> None:
    owner = Identity.generate()
    token = owner.token(router.service.address)
    authorization = [("authorization", f"Bearer {token}")]
    line = await router.stub(None)
    first = await line.UploadModel(messages(), metadata=authorization)
    assert not first.existed
    assert await line.UploadModel(messages(), metadata=authorization) == first

    other = Gguf(version=2).to_bytes()
    digest = hashlib.sha256(other).hexdigest()
    known = catalogue_models()[0].digest
    for sent in (messages(other, digest=digest), messages(digest=known)):
        with pytest.raises(aio.AioRpcError) as refusal:
            await line.UploadModel(sent, metadata=authorization)
        assert refusal.value.code() is grpc.StatusCode.ALREADY_EXISTS
        assert error_of(refusal.value).reason == "TOKEN_REPLAYED"
    stub = await router.stub(owner)
    with pytest.raises(aio.AioRpcError) as refusal:
        await stub.GetModel(router_pb2.GetModelRequest(model=digest))
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    upload = await stub.GetUpload(router_pb2.GetUploadRequest(digest=digest))
    assert not upload.complete
    rest = await stub.UploadModel(messages(other, digest=digest, offset=upload.offset))
    assert not rest.existed


async def test_an_uploaded_model_that_is_a_default_answers_everybody(tmp_path: Path) -> None:
    async with running_router(tmp_path, chat_model=DIGEST, judge_model=DIGEST) as router:
        await (await router.operator()).UploadModel(messages())
        worker = await router.worker()
        worker.answers = ["7"]
        stranger = await router.stub(Identity.generate())
        info = await stranger.GetInfo(router_pb2.GetInfoRequest())
        assert (info.chat_model.digest, info.chat_model.name) == (DIGEST, "tiny")
        for model in (None, info.chat_model):
            question = router_pb2.ChatRequest(question="Where?", model=model)
            assert [response async for response in stranger.Chat(question)]
        graded = await stranger.Evaluate(
            router_pb2.EvaluateRequest(question="Where?", expected_response="Here.")
        )
        assert graded.provenance.model_digest == DIGEST
        assert {request.model.digest for request in worker.prompted} == {DIGEST}
        with pytest.raises(aio.AioRpcError) as refusal:
            await download(stranger)
        assert error_of(refusal.value).reason == "SUBJECT_NOT_OWNED"


async def test_anothers_model_can_be_seen_but_not_run_or_downloaded(
    router: RouterHarness,
) -> None:
    owner = Identity.generate()
    await (await router.stub(owner)).UploadModel(messages())
    stranger = await router.stub(Identity.generate())
    found = await stranger.GetModel(router_pb2.GetModelRequest(model=DIGEST))
    assert found.model.owner == owner.address
    request = inference_pb2.InferRequest(
        model=inference_pb2.ModelReference(digest=DIGEST), prompt="Hello"
    )
    with pytest.raises(aio.AioRpcError) as refusal:
        [response async for response in stranger.Infer(request)]
    assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert error_of(refusal.value).reason == "SUBJECT_NOT_OWNED"
    assert field_of(refusal.value) == "model.digest"
    with pytest.raises(aio.AioRpcError) as refusal:
        await download(stranger)
    assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert error_of(refusal.value).reason == "SUBJECT_NOT_OWNED"
    assert field_of(refusal.value) == "digest"


async def test_what_is_not_there_is_neither_found_nor_downloaded(router: RouterHarness) -> None:
    stub = await router.stub(Identity.generate())
    with pytest.raises(aio.AioRpcError) as refusal:
        await stub.GetModel(router_pb2.GetModelRequest(model=DIGEST))
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    assert error_of(refusal.value).reason == "MODEL_NOT_FOUND"
    assert field_of(refusal.value) == "model"
    for nothing in ("", "x" * 129, "a\0b"):
        with pytest.raises(aio.AioRpcError) as refusal:
            await stub.GetModel(router_pb2.GetModelRequest(model=nothing))
        assert fields_of(refusal.value) == {"model"}
    with pytest.raises(aio.AioRpcError) as refusal:
        await download(stub)
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    assert error_of(refusal.value).reason == "MODEL_NOT_FOUND"
    assert field_of(refusal.value) == "digest"
    with pytest.raises(aio.AioRpcError) as refusal:
        await stub.GetUpload(router_pb2.GetUploadRequest(digest=DIGEST.upper()))
    assert fields_of(refusal.value) == {"digest"}


async def test_a_download_cannot_begin_behind_the_files_end(router: RouterHarness) -> None:
    owner = await router.stub(Identity.generate())
    await owner.UploadModel(messages())
    for offset in (-1, len(CONTENT) + 1):
        with pytest.raises(aio.AioRpcError) as refusal:
            await download(owner, offset)
        assert fields_of(refusal.value) == {"offset"}


async def test_the_dataset_service_may_score_with_everybodys_models(
    router: RouterHarness,
) -> None:
    await (await router.stub(Identity.generate())).UploadModel(messages())
    await router.worker()
    dataset = await router.stub(router.dataset)
    question = inference_pb2.ChoiceQuestion(id="q", prompt="p", choices=["a", "b"])
    request = inference_pb2.ScoreChoicesRequest(
        model=inference_pb2.ModelReference(digest=DIGEST), questions=[question]
    )
    responses = [response async for response in dataset.ScoreChoices(request)]
    assert responses[-1].complete.scored == 1


async def test_an_upload_is_resumed_after_the_line_broke(router: RouterHarness) -> None:
    owner = await router.stub(Identity.generate())

    async def broken() -> AsyncIterator[router_pb2.UploadModelRequest]:
        count = 0
        async for message in messages():
            yield message
            count += 1
            if count == 3:
                return

    with pytest.raises(aio.AioRpcError) as refusal:
        await owner.UploadModel(broken())
    assert refusal.value.code() is grpc.StatusCode.ABORTED
    assert error_of(refusal.value).metadata["offset"] == "400"
    assert field_of(refusal.value) == "header.offset"
    upload = await owner.GetUpload(router_pb2.GetUploadRequest(digest=DIGEST))
    assert (upload.offset, upload.complete) == (400, False)
    stored = await owner.UploadModel(messages(offset=400))
    assert not stored.existed


@pytest.mark.parametrize(
    ("content", "digest", "reason", "field"),
    [
        (CONTENT, "0" * 64, "DIGEST_MISMATCH", "header.digest"),
        (CONTENT[:-1], hashlib.sha256(CONTENT[:-1]).hexdigest(), "INVALID_GGUF", "chunk"),
        (b"no model", hashlib.sha256(b"no model").hexdigest(), "INVALID_GGUF", "chunk"),
    ],
)
async def test_what_is_no_whole_gguf_of_its_digest_is_refused(
    router: RouterHarness, content: bytes, digest: str, reason: str, field: str
) -> None:
    owner = await router.stub(Identity.generate())
    with pytest.raises(aio.AioRpcError) as refusal:
        await owner.UploadModel(messages(content, digest=digest))
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error_of(refusal.value).reason == reason
    assert field_of(refusal.value) == field
    with pytest.raises(aio.AioRpcError) as refusal:
        await owner.GetModel(router_pb2.GetModelRequest(model=digest))
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_upload_must_begin_with_a_header_that_is_right(router: RouterHarness) -> None:
    owner = await router.stub(Identity.generate())

    async def headless() -> AsyncIterator[router_pb2.UploadModelRequest]:
        yield router_pb2.UploadModelRequest(chunk=b"GGUF")

    async def empty() -> AsyncIterator[router_pb2.UploadModelRequest]:
        return
        yield

    async def wrong() -> AsyncIterator[router_pb2.UploadModelRequest]:
        yield router_pb2.UploadModelRequest(header=router_pb2.UploadHeader(digest="x", offset=-1))

    for sent, fields in (
        (headless(), {"header"}),
        (empty(), {"header"}),
        (wrong(), {"header.digest", "header.size_bytes", "header.name", "header.offset"}),
    ):
        with pytest.raises(aio.AioRpcError) as refusal:
            await owner.UploadModel(sent)
        assert fields_of(refusal.value) == fields


async def test_chunks_are_bounded(router: RouterHarness) -> None:
    owner = await router.stub(Identity.generate())

    async def large() -> AsyncIterator[router_pb2.UploadModelRequest]:
        size = 3 * 1024 * 1024
        yield router_pb2.UploadModelRequest(
            header=router_pb2.UploadHeader(digest=DIGEST, size_bytes=size, name="x")
        )
        yield router_pb2.UploadModelRequest(chunk=b"GGUF" + bytes(size))

    with pytest.raises(aio.AioRpcError) as refusal:
        await owner.UploadModel(large())
    assert fields_of(refusal.value) == {"chunk"}


async def test_models_are_listed_page_by_page(router: RouterHarness) -> None:
    owner = await router.stub(Identity.generate())
    await owner.UploadModel(messages())
    names, token = [], ""
    while True:
        page = await owner.ListModels(router_pb2.ListModelsRequest(page_size=3, page_token=token))
        names += [model.name for model in page.models]
        token = page.next_page_token
        if not token:
            break
    assert names == [*(model.name for model in catalogue_models()), "tiny"]

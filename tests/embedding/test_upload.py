"""Sets that come in pieces over real gRPC."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from sqlalchemy import func, select

from evalpool.embedding.v1 import embedding_pb2 as pb
from evalpool.embedding.v1.embedding_pb2_grpc import EmbeddingServiceStub
from evalpool.errors import CallError
from evalpool.identity import Identity
from evalpool_embedding.schema import documents
from evalpool_runtime.database import Database
from evalpool_runtime.testing import ServiceUnderTest
from tests.embedding.calls import SEED_HASH, Start, calling, document, refusal, seed_set, upload

if TYPE_CHECKING:
    pass


async def test_an_upload_tells_its_progress_and_ends_ready(start: Start, owner: Identity) -> None:
    listed = [document(f"document number {n}", number=n) for n in range(300)]
    messages = [
        pb.UploadDatasetRequest(hash="large", list=listed[:200]),
        pb.UploadDatasetRequest(list=listed[200:]),
    ]
    async with start() as service, calling(service, owner) as stub:
        seen = await upload(stub, messages)

        assert [each.document_count for each in seen[:3]] == [200, 300, 300]
        assert {each.state for each in seen[:-1]} == {pb.DOCUMENT_SET_STATE_EMBEDDING}
        counts = [each.embedded_count for each in seen]
        assert counts == sorted(counts)
        assert seen[-1].state == pb.DOCUMENT_SET_STATE_READY
        assert counts[-1] == 300
        request = pb.SearchPromptRequest(
            dataset_hash="large", prompt="document number 250", top_k=1
        )
        assert (await stub.SearchPrompt(request)).results[0].index == 250
        created = await stub.CreateDataset(pb.CreateDatasetRequest(hash="large", list=listed))
        assert created.existed
        assert created.dataset == seen[-1]
        assert (await upload(stub, messages))[-1] == seen[-1]


async def test_an_upload_under_a_taken_name_is_refused(start: Start, owner: Identity) -> None:
    async with start() as service, calling(service, owner) as stub:
        await stub.CreateDataset(seed_set())
        messages = [pb.UploadDatasetRequest(hash=SEED_HASH, list=[document("other")])]

        error = await refusal(upload(stub, messages), grpc.StatusCode.ALREADY_EXISTS, "hash")

        assert error.reason == "DOCUMENT_SET_EXISTS"
        assert await stored_documents(service) == 4


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "list"),
        ([pb.UploadDatasetRequest(hash="a b", list=[document("x")])], "hash"),
        ([pb.UploadDatasetRequest(hash="a")], "list"),
        (
            [
                pb.UploadDatasetRequest(hash="a", list=[document("x")]),
                pb.UploadDatasetRequest(list=[document("y"), document("")]),
            ],
            "list[2].content",
        ),
        (
            [
                pb.UploadDatasetRequest(hash="a", list=[document("x")]),
                pb.UploadDatasetRequest(hash="b", list=[document("y")]),
            ],
            "hash",
        ),
        ([pb.UploadDatasetRequest(hash="a", list=[document("x")] * 6)], "list"),
        ([pb.UploadDatasetRequest(hash="a", list=[document("x" * 60_000)] * 60)], "list"),
    ],
)
async def test_nothing_is_kept_of_a_bad_upload(
    start: Start, owner: Identity, messages: list[pb.UploadDatasetRequest], field: str
) -> None:
    async with start(max_documents=5) as service, calling(service, owner) as stub:
        error = await refusal(upload(stub, messages), grpc.StatusCode.INVALID_ARGUMENT, field)

        assert error.reason == "INVALID_FIELD"
        assert not (await stub.ListDatasets(pb.ListDatasetsRequest())).datasets
        assert await stored_documents(service) == 0


@pytest.mark.parametrize("how", ["cancelled", "timed out", "disconnected"])
async def test_nothing_is_kept_of_an_upload_that_is_broken_off(
    start: Start, owner: Identity, how: str
) -> None:
    async with start() as service, calling(service, owner) as stub:
        async with service.channel(owner) as channel:
            call: Any = EmbeddingServiceStub(channel).UploadDataset(
                timeout=1.0 if how == "timed out" else None
            )
            await call.write(pb.UploadDatasetRequest(hash="a", list=[document("x")]))
            first = await call.read()
            assert first.dataset.document_count == 1
            assert await stored_documents(service) == 1
            if how == "cancelled":
                call.cancel()
            elif how == "timed out":
                with pytest.raises(grpc.aio.AioRpcError):
                    await call.read()

        while await stored_documents(service):
            pass
        assert not (await stub.ListDatasets(pb.ListDatasetsRequest())).datasets


async def test_of_two_uploads_under_one_name_at_once_one_is_kept(
    start: Start, owner: Identity
) -> None:
    async with start() as service, calling(service, owner) as stub:
        calls: list[Any] = [stub.UploadDataset(), stub.UploadDataset()]
        for call, content in zip(calls, ("one", "other"), strict=True):
            await call.write(pb.UploadDatasetRequest(hash="a", list=[document(content)]))
            assert (await call.read()).dataset.document_count == 1

        digests = await asyncio.gather(*map(finish, calls), return_exceptions=True)

        refused = [each for each in digests if isinstance(each, grpc.aio.AioRpcError)]
        assert [CallError.of(each).reason for each in refused] == ["DOCUMENT_SET_EXISTS"]
        (kept,) = (await stub.ListDatasets(pb.ListDatasetsRequest())).datasets
        assert kept.digest in digests
        assert await stored_documents(service) == 1


async def finish(call: Any) -> str:
    """End an upload; the digest of what it made."""
    await call.done_writing()
    digest = ""
    while (response := await call.read()) is not grpc.aio.EOF:
        digest = response.dataset.digest
    return digest


async def test_two_uploads_of_the_same_at_once_are_both_answered(
    start: Start, owner: Identity
) -> None:
    listed = [document(f"document {n}") for n in range(20)]
    messages = [pb.UploadDatasetRequest(hash="a", list=listed)]
    async with start() as service, calling(service, owner) as stub:
        one, other = await asyncio.gather(upload(stub, messages), upload(stub, messages))

        assert one[-1] == other[-1]
        assert one[-1].state == pb.DOCUMENT_SET_STATE_READY
        assert await stored_documents(service) == 20


async def test_duplicate_documents_are_kept_as_often_as_they_come(
    start: Start, owner: Identity
) -> None:
    messages = [pb.UploadDatasetRequest(hash="a", list=[document("the same")] * 3)]
    async with start() as service, calling(service, owner) as stub:
        last = (await upload(stub, messages))[-1]
        found = await stub.SearchPrompt(
            pb.SearchPromptRequest(dataset_hash="a", prompt="the same", top_k=10)
        )

        assert last.document_count == 3
        assert [each.index for each in found.results] == [0, 1, 2]


async def stored_documents(service: ServiceUnderTest) -> int:
    """How many documents are in the service's database."""
    path = service.running.runtime.data_dir / "embedding.db"
    database = Database.open(f"sqlite:///{path}")
    try:
        return await database.read(
            lambda c: c.execute(select(func.count()).select_from(documents)).scalar_one()
        )
    finally:
        await database.close()

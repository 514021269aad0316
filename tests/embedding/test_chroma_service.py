"""The service on a Chroma server: away, back, emptied, and shared with another service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from evalpool.embedding.v1 import embedding_pb2 as pb
from evalpool.errors import CallError
from evalpool.identity import Identity
from evalpool_embedding.chroma import ChromaServer
from evalpool_embedding.service import SERVICE
from evalpool_embedding.vectors import VectorIndex
from evalpool_runtime.testing import ServiceUnderTest, running
from tests.embedding.calls import (
    SEED_HASH,
    Start,
    calling,
    document,
    refusal,
    seed_search,
    seed_set,
    upload,
)
from tests.embedding.chroma_process import ChromaProcess
from tests.waiting import until

if TYPE_CHECKING:
    from evalpool.embedding.v1.embedding_pb2_grpc import EmbeddingServiceAsyncStub


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ChromaProcess]:
    """A server that is this test's to kill."""
    server = ChromaProcess(tmp_path / "own")
    yield server
    server.kill()


def index_of(service: ServiceUnderTest, server: ChromaProcess) -> VectorIndex:
    """The service's collections, seen from outside."""
    return VectorIndex(ChromaServer(server.endpoint, service.address))


async def until_ready(stub: EmbeddingServiceAsyncStub, name: str = SEED_HASH) -> pb.DocumentSet:
    async def get() -> pb.DocumentSet:
        found = await stub.GetDataset(pb.GetDatasetRequest(dataset_hash=name))
        return found.dataset

    return await until(get, lambda each: each.state == pb.DOCUMENT_SET_STATE_READY)


async def test_a_set_is_searched_on_a_server_and_deleted_there(
    start: Start, owner: Identity, chroma_server: ChromaProcess
) -> None:
    settings = {"chroma_server": chroma_server.endpoint}
    async with start(**settings) as service, calling(service, owner) as stub:
        created = await stub.CreateDataset(seed_set())
        found = await stub.SearchPrompt(seed_search())
        assert created.dataset.state == pb.DOCUMENT_SET_STATE_READY
        assert [each.index for each in found.results] == [2, 1, 0, 3]

    async with start(**settings) as service, calling(service, owner) as stub:
        assert await stub.SearchPrompt(seed_search()) == found
        index = index_of(service, chroma_server)
        assert len(index.names()) == 1
        await stub.DeleteDataset(pb.DeleteDatasetRequest(hash=SEED_HASH))
        assert index.names() == set()
        index.close()


async def test_while_the_server_is_away_sets_wait_and_searches_say_so(
    start: Start, owner: Identity, own_server: ChromaProcess
) -> None:
    async with (
        start(chroma_server=own_server.endpoint) as service,
        calling(service, owner) as stub,
    ):
        waiting = await stub.CreateDataset(seed_set(), timeout=1.0)
        assert waiting.dataset.state == pb.DOCUMENT_SET_STATE_EMBEDDING

        own_server.start()
        await until_ready(stub)
        found = await stub.SearchPrompt(seed_search())
        assert len(found.results) == 4
        own_server.kill()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.SearchPrompt(seed_search())
        error = CallError.of(raised.value)
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert error.message == "the service's Chroma server is out of reach; try again"
        assert error.retry_after == 1.0
        other = pb.CreateDatasetRequest(hash="other", list=[document("another document")])
        waiting = await stub.CreateDataset(other, timeout=1.0)
        assert waiting.dataset.state == pb.DOCUMENT_SET_STATE_EMBEDDING

        own_server.start()
        assert await stub.SearchPrompt(seed_search()) == found
        await until_ready(stub, "other")
        metrics = service.running.runtime.metrics
        assert metrics.get_sample_value("evalpool_embedding_failures_total") == 0


async def test_a_set_that_is_deleted_while_the_server_is_away_leaves_nothing(
    start: Start, owner: Identity, own_server: ChromaProcess
) -> None:
    own_server.start()
    settings = {"chroma_server": own_server.endpoint}
    async with start(**settings) as service, calling(service, owner) as stub:
        await stub.CreateDataset(seed_set())
        own_server.kill()
        await stub.DeleteDataset(pb.DeleteDatasetRequest(hash=SEED_HASH))
        assert not (await stub.ListDatasets(pb.ListDatasetsRequest())).datasets

    own_server.start()
    async with start(**settings) as service:
        index = index_of(service, own_server)
        assert index.names() == set()
        index.close()


async def test_vectors_that_the_server_has_lost_are_computed_again(
    start: Start, owner: Identity, chroma_server: ChromaProcess
) -> None:
    async with (
        start(chroma_server=chroma_server.endpoint) as service,
        calling(service, owner) as stub,
    ):
        await stub.CreateDataset(seed_set())
        found = await stub.SearchPrompt(seed_search())
        index = index_of(service, chroma_server)
        for name in index.names():
            index.drop(name)
        index.close()

        lost = await refusal(
            stub.SearchPrompt(seed_search()),
            grpc.StatusCode.FAILED_PRECONDITION,
            "dataset_hash",
        )

        assert lost.reason == "DOCUMENT_SET_NOT_READY"
        await until_ready(stub)
        assert await stub.SearchPrompt(seed_search()) == found


async def test_two_services_share_a_server_and_not_their_sets(
    tmp_path: Path,
    models_dir: Path,
    owner: Identity,
    chroma_server: ChromaProcess,
) -> None:
    settings: dict[str, Any] = {
        "models_dir": models_dir,
        "chroma_server": chroma_server.endpoint,
    }
    async with (
        running(SERVICE, tmp_path / "one", **settings) as one,
        calling(one, owner) as first,
    ):
        # The same content gets the same number in both.
        await first.CreateDataset(seed_set())
        async with (
            running(SERVICE, tmp_path / "two", **settings) as two,
            calling(two, owner) as second,
        ):
            await second.CreateDataset(seed_set())
            await second.DeleteDataset(pb.DeleteDatasetRequest(hash=SEED_HASH))

        assert len((await first.SearchPrompt(seed_search())).results) == 4


async def test_replicas_on_one_database_and_one_server_do_each_others_work(
    tmp_path: Path,
    models_dir: Path,
    owner: Identity,
    chroma_server: ChromaProcess,
    postgresql_url: str,
) -> None:
    settings: dict[str, Any] = {
        "models_dir": models_dir,
        "chroma_server": chroma_server.endpoint,
        "database_url": postgresql_url,
        "identity": Identity.generate(),
    }
    listed = [document(f"document number {n}") for n in range(600)]
    async with (
        running(SERVICE, tmp_path / "one", **settings) as one,
        running(SERVICE, tmp_path / "two", **settings) as two,
        calling(one, owner) as first,
        calling(two, owner) as second,
    ):
        last = (await upload(first, [pb.UploadDatasetRequest(hash="large", list=listed)]))[-1]
        assert last.embedded_count == 600
        search = pb.SearchPromptRequest(
            dataset_hash="large", prompt="document number 599", top_k=100
        )
        found = await second.SearchPrompt(search)
        assert found.results[0].index == 599
        assert len({each.index for each in found.results}) == 100
        await second.DeleteDataset(pb.DeleteDatasetRequest(hash="large"))
        await refusal(first.SearchPrompt(search), grpc.StatusCode.NOT_FOUND, "dataset_hash")

"""Searches over real gRPC, with real Chroma and the real model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from evalpool.embedding.v1 import embedding_pb2 as pb
from evalpool.identity import Identity
from evalpool_embedding.documents import Document, content_digest
from evalpool_embedding.model import Vectors
from evalpool_embedding.onnx_model import OnnxModel
from evalpool_embedding.vectors import Neighbour, VectorIndex
from tests.embedding.calls import (
    SEED_COSINES,
    SEED_DOCUMENTS,
    SEED_HASH,
    Start,
    calling,
    document,
    refusal,
    seed_search,
    seed_set,
)


async def test_the_seeds_example_finds_its_documents(start: Start, owner: Identity) -> None:
    async with start() as service, calling(service, owner) as stub:
        created = await stub.CreateDataset(seed_set())
        found = (await stub.SearchPrompt(seed_search())).results

        assert not created.existed
        assert created.dataset.hash == SEED_HASH
        assert created.dataset.owner == owner.address
        assert created.dataset.state == pb.DOCUMENT_SET_STATE_READY
        assert (created.dataset.document_count, created.dataset.embedded_count) == (4, 4)
        assert created.dataset.digest == content_digest(
            [Document(content, {"title": title}) for title, content in SEED_DOCUMENTS.items()]
        )
        titles = [str(each.meta["title"]) for each in found]
        assert titles == ["three", "two", "one", "four"]
        assert [each.index for each in found] == [2, 1, 0, 3]
        for title, each in zip(titles, found, strict=True):
            assert each.content == SEED_DOCUMENTS[title]
            assert each.similarity == pytest.approx(SEED_COSINES[title], abs=0.01)


async def test_a_set_is_found_by_its_digest_and_by_further_names(
    start: Start, owner: Identity
) -> None:
    async with start() as service, calling(service, owner) as stub:
        digest = (await stub.CreateDataset(seed_set())).dataset.digest
        await stub.CreateDataset(seed_set("other-name"))

        by_alias = await stub.SearchPrompt(seed_search())

        assert await stub.SearchPrompt(seed_search(digest)) == by_alias
        assert await stub.SearchPrompt(seed_search("other-name")) == by_alias


async def test_a_filter_leaves_only_documents_whose_meta_has_its_values(
    start: Start, owner: Identity
) -> None:
    listed = [
        document("a cat", kind="animal", legs=4, tame=True),
        document("a tiger", kind="animal", legs=4, tame=False),
        document("a stool", kind="thing", legs=4),
        document("a hen", kind="animal", legs=2, tame=True, document="yes"),
        document("nothing is known of this"),
    ]
    async with start() as service, calling(service, owner) as stub:
        await stub.CreateDataset(pb.CreateDatasetRequest(hash="zoo", list=listed))

        async def search(**wanted: Any) -> set[str]:
            request = pb.SearchPromptRequest(dataset_hash="zoo", prompt="a lion", top_k=10)
            request.filter.update(wanted)
            return {each.content for each in (await stub.SearchPrompt(request)).results}

        assert await search() == {each.content for each in listed}
        assert await search(legs=4) == {"a cat", "a tiger", "a stool"}
        assert await search(legs=4, kind="animal") == {"a cat", "a tiger"}
        assert await search(legs=4, kind="animal", tame=True) == {"a cat"}
        assert await search(document="yes") == {"a hen"}
        assert await search(legs="4") == set()
        assert await search(legs=3) == set()


async def test_top_k_bounds_the_results(start: Start, owner: Identity) -> None:
    listed = [document(f"document number {n}") for n in range(12)]
    async with start() as service, calling(service, owner) as stub:
        await stub.CreateDataset(pb.CreateDatasetRequest(hash="many", list=listed))

        async def count(top_k: int) -> int:
            request = pb.SearchPromptRequest(dataset_hash="many", prompt="one", top_k=top_k)
            return len((await stub.SearchPrompt(request)).results)

        assert await count(0) == 4
        assert await count(1) == 1
        assert await count(100) == 12


async def test_the_dataset_service_searches_by_digest_and_keeps_the_set_from_deletion(
    start: Start, owner: Identity, dataset_service: Identity
) -> None:
    async with start() as service, calling(service, owner) as stub:
        created = (await stub.CreateDataset(seed_set())).dataset
        async with calling(service, dataset_service) as dataset:
            seen = await dataset.GetDataset(pb.GetDatasetRequest(dataset_hash=created.digest))
            found = await dataset.SearchPrompt(seed_search(created.digest))
            by_alias = dataset.SearchPrompt(seed_search(SEED_HASH))
            await refusal(by_alias, grpc.StatusCode.NOT_FOUND, "dataset_hash")

        assert seen.dataset.entered
        seen.dataset.entered = False
        assert seen.dataset == created
        assert len(found.results) == 4
        assert found.model_digest == created.model_digest
        deletion = stub.DeleteDataset(pb.DeleteDatasetRequest(hash=SEED_HASH))
        error = await refusal(deletion, grpc.StatusCode.FAILED_PRECONDITION, "hash")
        assert error.reason == "DOCUMENT_SET_ENTERED"
        assert len((await stub.SearchPrompt(seed_search())).results) == 4


async def test_what_the_dataset_service_looks_up_for_a_run_cannot_be_deleted_any_more(
    start: Start, owner: Identity, stranger: Identity, dataset_service: Identity
) -> None:
    async with start() as service, calling(service, owner) as stub:
        created = (await stub.CreateDataset(seed_set())).dataset
        own = await stub.GetDataset(pb.GetDatasetRequest(dataset_hash=created.digest))
        async with calling(service, stranger) as other:
            await other.CreateDataset(seed_set("theirs"))
        assert not own.dataset.entered, "its owner only looked at it"

        async with calling(service, dataset_service) as dataset:
            seen = await dataset.GetDataset(pb.GetDatasetRequest(dataset_hash=created.digest))

        assert seen.dataset.owner == owner.address
        assert (seen.dataset.state, seen.dataset.document_count) == (
            pb.DOCUMENT_SET_STATE_READY,
            4,
        )
        assert seen.dataset.entered
        deletion = stub.DeleteDataset(pb.DeleteDatasetRequest(hash=SEED_HASH))
        error = await refusal(deletion, grpc.StatusCode.FAILED_PRECONDITION, "hash")
        assert error.reason == "DOCUMENT_SET_ENTERED"
        async with calling(service, stranger) as other:
            await other.DeleteDataset(pb.DeleteDatasetRequest(hash="theirs"))


async def test_a_set_is_entered_while_it_is_still_being_embedded(
    start: Start, owner: Identity, dataset_service: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    real = OnnxModel.encode

    def encode(self: OnnxModel, texts: Sequence[str]) -> Vectors:
        gate.wait()
        return real(self, texts)

    monkeypatch.setattr(OnnxModel, "encode", encode)
    async with start() as service, calling(service, owner) as stub:
        created = (await stub.CreateDataset(seed_set(), timeout=0.5)).dataset
        assert created.state == pb.DOCUMENT_SET_STATE_EMBEDDING
        async with calling(service, dataset_service) as dataset:
            seen = await dataset.GetDataset(pb.GetDatasetRequest(dataset_hash=created.digest))
            early = dataset.SearchPrompt(seed_search(created.digest))
            refused = await refusal(early, grpc.StatusCode.FAILED_PRECONDITION, "dataset_hash")
        gate.set()

        assert seen.dataset.entered
        assert refused.reason == "DOCUMENT_SET_NOT_READY"
        assert refused.metadata["embedded_count"] == "0"
        deletion = stub.DeleteDataset(pb.DeleteDatasetRequest(hash=SEED_HASH))
        await refusal(deletion, grpc.StatusCode.FAILED_PRECONDITION, "hash")


async def test_a_set_that_is_deleted_while_it_is_searched_is_not_found(
    start: Start, owner: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    real = VectorIndex.nearest

    async with start() as service, calling(service, owner) as stub:

        async def delete() -> None:
            await stub.DeleteDataset(pb.DeleteDatasetRequest(hash=SEED_HASH))

        def nearest(*arguments: Any) -> list[Neighbour]:
            found = real(*arguments)
            asyncio.run_coroutine_threadsafe(delete(), loop).result()
            return found

        await stub.CreateDataset(seed_set())
        monkeypatch.setattr(VectorIndex, "nearest", nearest)

        search = stub.SearchPrompt(seed_search())
        await refusal(search, grpc.StatusCode.NOT_FOUND, "dataset_hash")


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"top_k": -1}, {"top_k"}),
        ({"top_k": 101}, {"top_k"}),
        ({"top_k": 10_000}, {"top_k"}),
        ({"prompt": ""}, {"prompt"}),
        ({"prompt": "x" * 65_537}, {"prompt"}),
        ({"prompt": "x\0"}, {"prompt"}),
        ({"dataset_hash": ""}, {"dataset_hash"}),
        ({"dataset_hash": "x\0"}, {"dataset_hash"}),
        ({"dataset_hash": "x" * 129}, {"dataset_hash"}),
        ({"filter": {"a": None}}, {"filter.a"}),
        ({"filter": {"$and": [1]}, "top_k": 101}, {"filter.$and", "top_k"}),
    ],
)
async def test_a_bad_search_is_refused(
    start: Start, owner: Identity, change: dict[str, Any], fields: set[str]
) -> None:
    async with start() as service, calling(service, owner) as stub:
        await stub.CreateDataset(seed_set())
        request = pb.SearchPromptRequest(**{"dataset_hash": SEED_HASH, "prompt": "x", **change})

        search = stub.SearchPrompt(request)
        error = await refusal(search, grpc.StatusCode.INVALID_ARGUMENT, *fields)

        assert error.reason == "INVALID_FIELD"

"""Document sets and vectors of texts over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from evalpool.embedding.v1 import embedding_pb2 as pb
from evalpool.identity import Identity
from evalpool_embedding.onnx_model import OnnxModel
from tests.embedding.calls import (
    SEED_HASH,
    Start,
    calling,
    document,
    refusal,
    seed_documents,
    seed_search,
    seed_set,
)

if TYPE_CHECKING:
    pass


async def test_get_info_is_public_and_names_the_model(start: Start, model: OnnxModel) -> None:
    async with start() as service, calling(service, None) as stub:
        info = await stub.GetInfo(pb.GetInfoRequest())

        assert info.info.service == "embedding"
        assert info.info.address == service.address
        assert info.model == model.files.name
        assert info.model_digest == model.files.digest
        assert info.dimensions == 384


async def test_the_same_content_again_is_no_change(start: Start, owner: Identity) -> None:
    async with start() as service, calling(service, owner) as stub:
        first = await stub.CreateDataset(seed_set())
        again = await stub.CreateDataset(seed_set())

        assert again.existed
        assert again.dataset == first.dataset


async def test_the_same_name_with_other_content_is_refused(start: Start, owner: Identity) -> None:
    async with start() as service, calling(service, owner) as stub:
        first = await stub.CreateDataset(seed_set())
        other = pb.CreateDatasetRequest(hash=SEED_HASH, list=seed_documents()[:3])

        error = await refusal(stub.CreateDataset(other), grpc.StatusCode.ALREADY_EXISTS, "hash")
        kept = await stub.GetDataset(pb.GetDatasetRequest(dataset_hash=SEED_HASH))

        assert error.reason == "DOCUMENT_SET_EXISTS"
        assert kept.dataset == first.dataset


async def test_others_see_nothing_of_a_set(
    start: Start, owner: Identity, stranger: Identity
) -> None:
    async with start() as service, calling(service, owner) as stub:
        digest = (await stub.CreateDataset(seed_set())).dataset.digest
        async with calling(service, stranger) as other:
            for name in (SEED_HASH, digest):
                calls: list[tuple[Awaitable[Any], str]] = [
                    (other.SearchPrompt(seed_search(name)), "dataset_hash"),
                    (other.GetDataset(pb.GetDatasetRequest(dataset_hash=name)), "dataset_hash"),
                    (other.DeleteDataset(pb.DeleteDatasetRequest(hash=name)), "hash"),
                ]
                for call, field in calls:
                    error = await refusal(call, grpc.StatusCode.NOT_FOUND, field)
                    assert error.reason == "DOCUMENT_SET_NOT_FOUND"
            assert not (await other.ListDatasets(pb.ListDatasetsRequest())).datasets

        assert len((await stub.SearchPrompt(seed_search())).results) == 4


async def test_two_owners_share_a_content_and_neither_deletes_the_others(
    start: Start, owner: Identity, stranger: Identity
) -> None:
    async with start() as service, calling(service, owner) as stub:
        mine = (await stub.CreateDataset(seed_set())).dataset
        async with calling(service, stranger) as other:
            theirs = await other.CreateDataset(seed_set("theirs"))
            await stub.DeleteDataset(pb.DeleteDatasetRequest(hash=SEED_HASH))

            assert not theirs.existed
            assert theirs.dataset.digest == mine.digest
            assert len((await other.SearchPrompt(seed_search("theirs"))).results) == 4
        await refusal(stub.SearchPrompt(seed_search()), grpc.StatusCode.NOT_FOUND, "dataset_hash")


async def test_a_deleted_set_is_gone_and_can_be_made_again(start: Start, owner: Identity) -> None:
    async with start() as service, calling(service, owner) as stub:
        await stub.CreateDataset(seed_set())
        await stub.DeleteDataset(pb.DeleteDatasetRequest(hash=SEED_HASH))

        await refusal(stub.SearchPrompt(seed_search()), grpc.StatusCode.NOT_FOUND, "dataset_hash")
        again = await stub.CreateDataset(seed_set())

        assert not again.existed
        assert len((await stub.SearchPrompt(seed_search())).results) == 4


async def test_lists_come_in_pages_by_name(start: Start, owner: Identity) -> None:
    async with start() as service, calling(service, owner) as stub:
        for name in ("b", "a", "c"):
            await stub.CreateDataset(seed_set(name))

        names, token = [], ""
        while True:
            page = await stub.ListDatasets(pb.ListDatasetsRequest(page_size=2, page_token=token))
            names.append([each.hash for each in page.datasets])
            token = page.next_page_token
            if not token:
                break

        assert names == [["a", "b"], ["c"]]
        forged = stub.ListDatasets(pb.ListDatasetsRequest(page_token="AAAA"))
        error = await refusal(forged, grpc.StatusCode.INVALID_ARGUMENT, "page_token")
        assert error.reason == "INVALID_PAGE_TOKEN"


async def test_embed_gives_the_models_vectors(
    start: Start, owner: Identity, model: OnnxModel
) -> None:
    texts = ["a cat", "a much longer text about a cat and its day", "x"]
    async with start() as service, calling(service, owner) as stub:
        given, *_ = await asyncio.gather(
            stub.Embed(pb.EmbedRequest(texts=texts)),
            *(stub.Embed(pb.EmbedRequest(texts=[f"text {n}"])) for n in range(8)),
        )

    assert given.model_digest == model.files.digest
    vectors = np.array([list(each.values) for each in given.vectors])
    assert vectors == pytest.approx(model.encode(texts), abs=1e-5)


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.CreateDatasetRequest(hash="a"), {"list"}),
        (pb.CreateDatasetRequest(list=[document("x")]), {"hash"}),
        (pb.CreateDatasetRequest(hash="a b", list=[document("")]), {"hash", "list[0].content"}),
        (pb.CreateDatasetRequest(hash="a", list=[document("x" * 65_537)]), {"list[0].content"}),
        (pb.CreateDatasetRequest(hash="a", list=[document("x\0")]), {"list[0].content"}),
        (
            pb.CreateDatasetRequest(
                hash="a", list=[document("x"), document("y", a=None, b=[1], c={"d": 1}, e=1)]
            ),
            {"list[1].meta.a", "list[1].meta.b", "list[1].meta.c"},
        ),
        (
            pb.CreateDatasetRequest(hash="a", list=[document("x", a=float("nan"))]),
            {"list[0].meta.a"},
        ),
        (pb.CreateDatasetRequest(hash="a", list=[document("x")] * 1001), {"list"}),
    ],
)
async def test_a_bad_set_is_refused_and_changes_nothing(
    start: Start, owner: Identity, request_: pb.CreateDatasetRequest, fields: set[str]
) -> None:
    async with start() as service, calling(service, owner) as stub:
        creation = stub.CreateDataset(request_)
        error = await refusal(creation, grpc.StatusCode.INVALID_ARGUMENT, *fields)

        assert error.reason == "INVALID_FIELD"
        assert not (await stub.ListDatasets(pb.ListDatasetsRequest())).datasets


async def test_texts_to_embed_are_checked(start: Start, owner: Identity) -> None:
    async with start() as service, calling(service, owner) as stub:
        for texts, field in (([], "texts"), (["x"] * 257, "texts"), (["x", ""], "texts[1]")):
            call = stub.Embed(pb.EmbedRequest(texts=texts))
            error = await refusal(call, grpc.StatusCode.INVALID_ARGUMENT, field)
            assert error.reason == "INVALID_FIELD"


async def test_the_size_of_a_page_is_checked(start: Start, owner: Identity) -> None:
    async with start() as service, calling(service, owner) as stub:
        for size in (-1, 1001):
            call = stub.ListDatasets(pb.ListDatasetsRequest(page_size=size))
            await refusal(call, grpc.StatusCode.INVALID_ARGUMENT, "page_size")


async def test_without_a_token_only_get_info_answers(start: Start) -> None:
    async with start() as service, calling(service, None) as stub:
        calls: list[Awaitable[Any]] = [
            stub.CreateDataset(seed_set()),
            stub.SearchPrompt(seed_search()),
            stub.Embed(pb.EmbedRequest(texts=["x"])),
            stub.GetDataset(pb.GetDatasetRequest(dataset_hash=SEED_HASH)),
            stub.ListDatasets(pb.ListDatasetsRequest()),
            stub.DeleteDataset(pb.DeleteDatasetRequest(hash=SEED_HASH)),
        ]
        for call in calls:
            error = await refusal(call, grpc.StatusCode.UNAUTHENTICATED, "authorization")
            assert error.reason == "TOKEN_MISSING"

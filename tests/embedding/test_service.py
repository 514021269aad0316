"""The service over real gRPC, with real Chroma and the real model."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from sqlalchemy import func, select

from evalpool.channel import open_channel
from evalpool.embedding.v1 import embedding_pb2 as pb
from evalpool.embedding.v1.embedding_pb2_grpc import EmbeddingServiceStub
from evalpool.identity import Identity
from evalpool_embedding.documents import Document, content_digest
from evalpool_embedding.model import EmbeddingModel, Vectors
from evalpool_embedding.schema import documents
from evalpool_embedding.service import SERVICE
from evalpool_embedding.vectors import VectorIndex
from evalpool_runtime.database import Database
from evalpool_runtime.testing import ServiceUnderTest, running

if TYPE_CHECKING:
    from evalpool.embedding.v1.embedding_pb2_grpc import EmbeddingServiceAsyncStub

SEED_HASH = "673322f20121f3dc36538578295819386f1ef2b8"
SEED_DOCUMENTS = {
    "one": "This contains variable declarations",
    "two": "This contains another sort of variable declarations",
    "three": "This has nothing to do with variable declarations",
    "four": "A random doc",
}
SEED_PROMPT = "variable declarations"
SEED_COSINES = {"one": 0.845, "two": 0.859, "three": 0.889, "four": 0.133}

Start = Callable[..., AbstractAsyncContextManager[ServiceUnderTest]]


@pytest.fixture
def owner() -> Identity:
    return Identity.generate()


@pytest.fixture
def stranger() -> Identity:
    return Identity.generate()


@pytest.fixture(scope="session")
def dataset_service() -> Identity:
    return Identity.generate()


@pytest.fixture
def start(tmp_path: Path, models_dir: Path, dataset_service: Identity) -> Start:
    """Starts the service on one data directory, as often as a test likes."""

    @asynccontextmanager
    async def run(**settings: Any) -> AsyncIterator[ServiceUnderTest]:
        settings = {
            "models_dir": models_dir,
            "dataset_address": dataset_service.address,
            **settings,
        }
        async with running(SERVICE, tmp_path / "data", **settings) as service:
            yield service

    return run


@asynccontextmanager
async def calling(
    service: ServiceUnderTest, identity: Identity | None
) -> AsyncIterator[EmbeddingServiceAsyncStub]:
    async with service.channel(identity) as channel:
        yield EmbeddingServiceStub(channel)


def document(content: str, **meta: Any) -> pb.Document:
    made = pb.Document(content=content)
    made.meta.update(meta)
    return made


def seed_documents() -> list[pb.Document]:
    return [document(content, title=title) for title, content in SEED_DOCUMENTS.items()]


def seed_set(alias: str = SEED_HASH) -> pb.CreateDatasetRequest:
    return pb.CreateDatasetRequest(hash=alias, list=seed_documents())


def seed_search(name: str = SEED_HASH, **fields: Any) -> pb.SearchPromptRequest:
    return pb.SearchPromptRequest(dataset_hash=name, prompt=SEED_PROMPT, **fields)


async def refusal(
    call: Awaitable[Any], code: grpc.StatusCode
) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest]:
    """The details of a call that ends with this code."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() == code, raised.value.details()
    call_: Any = raised.value
    status = rpc_status.from_call(call_)
    assert status is not None
    infos, requests = [], [error_details_pb2.BadRequest()]
    for detail in status.details:
        info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            infos.append(info)
        if detail.Unpack(bad_request):
            requests.append(bad_request)
    (info,) = infos
    assert info.domain == "evalpool"
    return info, requests[-1]


async def upload(
    stub: EmbeddingServiceAsyncStub, messages: Sequence[pb.UploadDatasetRequest]
) -> list[pb.DocumentSet]:
    call: Any = stub.UploadDataset(iter(messages))
    return [response.dataset async for response in call]


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


async def test_get_info_is_public_and_names_the_model(start: Start, model: EmbeddingModel) -> None:
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

        info, _ = await refusal(stub.CreateDataset(other), grpc.StatusCode.ALREADY_EXISTS)
        kept = await stub.GetDataset(pb.GetDatasetRequest(dataset_hash=SEED_HASH))

        assert info.reason == "DOCUMENT_SET_EXISTS"
        assert kept.dataset == first.dataset


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


async def test_others_see_nothing_of_a_set(
    start: Start, owner: Identity, stranger: Identity
) -> None:
    async with start() as service, calling(service, owner) as stub:
        digest = (await stub.CreateDataset(seed_set())).dataset.digest
        async with calling(service, stranger) as other:
            for name in (SEED_HASH, digest):
                calls: list[Awaitable[Any]] = [
                    other.SearchPrompt(seed_search(name)),
                    other.GetDataset(pb.GetDatasetRequest(dataset_hash=name)),
                    other.DeleteDataset(pb.DeleteDatasetRequest(hash=name)),
                ]
                for call in calls:
                    info, _ = await refusal(call, grpc.StatusCode.NOT_FOUND)
                    assert info.reason == "DOCUMENT_SET_NOT_FOUND"
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
        await refusal(stub.SearchPrompt(seed_search()), grpc.StatusCode.NOT_FOUND)


async def test_the_dataset_service_searches_by_digest_and_keeps_the_set_from_deletion(
    start: Start, owner: Identity, dataset_service: Identity
) -> None:
    async with start() as service, calling(service, owner) as stub:
        created = (await stub.CreateDataset(seed_set())).dataset
        async with calling(service, dataset_service) as dataset:
            seen = await dataset.GetDataset(pb.GetDatasetRequest(dataset_hash=created.digest))
            found = await dataset.SearchPrompt(seed_search(created.digest))
            by_alias = dataset.SearchPrompt(seed_search(SEED_HASH))
            await refusal(by_alias, grpc.StatusCode.NOT_FOUND)

        assert seen.dataset == created
        assert len(found.results) == 4
        deletion = stub.DeleteDataset(pb.DeleteDatasetRequest(hash=SEED_HASH))
        info, _ = await refusal(deletion, grpc.StatusCode.FAILED_PRECONDITION)
        assert info.reason == "DOCUMENT_SET_ENTERED"
        assert len((await stub.SearchPrompt(seed_search())).results) == 4


async def test_a_deleted_set_is_gone_and_can_be_made_again(start: Start, owner: Identity) -> None:
    async with start() as service, calling(service, owner) as stub:
        await stub.CreateDataset(seed_set())
        await stub.DeleteDataset(pb.DeleteDatasetRequest(hash=SEED_HASH))

        await refusal(stub.SearchPrompt(seed_search()), grpc.StatusCode.NOT_FOUND)
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
        info, _ = await refusal(forged, grpc.StatusCode.INVALID_ARGUMENT)
        assert info.reason == "INVALID_PAGE_TOKEN"


async def test_embed_gives_the_models_vectors(
    start: Start, owner: Identity, model: EmbeddingModel
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

        info, _ = await refusal(upload(stub, messages), grpc.StatusCode.ALREADY_EXISTS)

        assert info.reason == "DOCUMENT_SET_EXISTS"
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
        info, bad = await refusal(upload(stub, messages), grpc.StatusCode.INVALID_ARGUMENT)

        assert info.reason == "INVALID_FIELD"
        assert field in {violation.field for violation in bad.field_violations}
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


async def test_sets_are_there_after_a_restart(start: Start, owner: Identity) -> None:
    async with start() as service, calling(service, owner) as stub:
        created = await stub.CreateDataset(seed_set())
        found = await stub.SearchPrompt(seed_search())

    async with start() as service, calling(service, owner) as stub:
        kept = await stub.GetDataset(pb.GetDatasetRequest(dataset_hash=SEED_HASH))
        assert kept.dataset == created.dataset
        assert await stub.SearchPrompt(seed_search()) == found


async def until_ready(stub: EmbeddingServiceAsyncStub) -> pb.DocumentSet:
    """Create the seed's set, and again until it is ready."""
    while True:
        dataset = (await stub.CreateDataset(seed_set())).dataset
        if dataset.state != pb.DOCUMENT_SET_STATE_EMBEDDING:
            return dataset


async def test_vectors_that_were_lost_are_computed_again(start: Start, owner: Identity) -> None:
    async with start() as service, calling(service, owner) as stub:
        digest = (await stub.CreateDataset(seed_set())).dataset.digest
        data_dir = service.running.runtime.data_dir
    index = VectorIndex.embedded(data_dir / "chroma")
    (name,) = index.names()
    assert name.startswith(digest)
    index.drop(name)
    index.put("of.nobody", 0, np.eye(1, 384, dtype=np.float32), [{}])
    index.close()

    async with start() as service, calling(service, owner) as stub:
        assert (await until_ready(stub)).state == pb.DOCUMENT_SET_STATE_READY
        assert len((await stub.SearchPrompt(seed_search())).results) == 4
    index = VectorIndex.embedded(data_dir / "chroma")
    assert index.names() == {name}
    index.close()


SERVE = """
import asyncio, sys
from pathlib import Path
from evalpool_embedding.service import SERVICE
from evalpool_runtime.testing import running

async def serve(data_dir, models_dir):
    async with running(SERVICE, data_dir, models_dir=models_dir) as service:
        print(service.endpoint, service.address, flush=True)
        await asyncio.Event().wait()

asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2])))
"""


async def test_embedding_that_a_killed_process_left_is_carried_on(
    start: Start, owner: Identity, tmp_path: Path, models_dir: Path
) -> None:
    words = "many words make a text that takes its time " * 8
    listed = [document(f"{words} and the number {n}") for n in range(800)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", SERVE, str(tmp_path / "data"), str(models_dir)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        endpoint, address = (await process.stdout.readline()).decode().split()
        channel = open_channel(endpoint, owner, address, retries=False)
        call: Any = EmbeddingServiceStub(channel).UploadDataset(
            iter([pb.UploadDatasetRequest(hash="large", list=listed)])
        )
        async for response in call:
            if response.dataset.embedded_count:
                break
        embedded = response.dataset.embedded_count
        search = pb.SearchPromptRequest(dataset_hash="large", prompt="the number 799", top_k=100)
        info, _ = await refusal(
            EmbeddingServiceStub(channel).SearchPrompt(search),
            grpc.StatusCode.FAILED_PRECONDITION,
        )
        call.cancel()
        await channel.close()
    finally:
        process.kill()
        await process.wait()
    assert 0 < embedded < 800
    assert info.reason == "DOCUMENT_SET_NOT_READY"
    assert info.metadata["document_count"] == "800"

    async with start() as service, calling(service, owner) as stub:
        found = await stub.GetDataset(pb.GetDatasetRequest(dataset_hash="large"))
        assert embedded <= found.dataset.embedded_count < 800
        last = (await upload(stub, [pb.UploadDatasetRequest(hash="large", list=listed)]))[-1]
        assert last.state == pb.DOCUMENT_SET_STATE_READY
        results = (await stub.SearchPrompt(search)).results
        assert results[0].index == 799
        assert len({each.index for each in results}) == 100


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
        info, bad = await refusal(stub.CreateDataset(request_), grpc.StatusCode.INVALID_ARGUMENT)

        assert info.reason == "INVALID_FIELD"
        assert {violation.field for violation in bad.field_violations} == fields
        assert not (await stub.ListDatasets(pb.ListDatasetsRequest())).datasets


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"top_k": -1}, {"top_k"}),
        ({"top_k": 101}, {"top_k"}),
        ({"top_k": 10_000}, {"top_k"}),
        ({"prompt": ""}, {"prompt"}),
        ({"prompt": "x" * 65_537}, {"prompt"}),
        ({"dataset_hash": ""}, {"dataset_hash"}),
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

        _, bad = await refusal(stub.SearchPrompt(request), grpc.StatusCode.INVALID_ARGUMENT)

        assert {violation.field for violation in bad.field_violations} == fields


async def test_texts_to_embed_are_checked(start: Start, owner: Identity) -> None:
    async with start() as service, calling(service, owner) as stub:
        for texts, field in (([], "texts"), (["x"] * 257, "texts"), (["x", ""], "texts[1]")):
            _, bad = await refusal(
                stub.Embed(pb.EmbedRequest(texts=texts)), grpc.StatusCode.INVALID_ARGUMENT
            )
            assert [violation.field for violation in bad.field_violations] == [field]


async def test_without_a_token_only_get_info_answers(start: Start) -> None:
    async with start() as service, calling(service, None) as stub:
        await refusal(stub.CreateDataset(seed_set()), grpc.StatusCode.UNAUTHENTICATED)
        await refusal(stub.SearchPrompt(seed_search()), grpc.StatusCode.UNAUTHENTICATED)


async def test_a_set_that_cannot_be_embedded_fails_and_can_be_tried_again(
    start: Start, owner: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: EmbeddingModel, texts: Sequence[str]) -> Vectors:
        raise RuntimeError("no more memory")

    monkeypatch.setattr("evalpool_embedding.embedder.FAILED_PAUSE_SECONDS", 0.0)
    async with start() as service, calling(service, owner) as stub:
        with monkeypatch.context() as patched:
            patched.setattr(EmbeddingModel, "encode", fail)
            created = await stub.CreateDataset(seed_set())
            info, _ = await refusal(
                stub.SearchPrompt(seed_search()), grpc.StatusCode.FAILED_PRECONDITION
            )
        again = await stub.CreateDataset(seed_set())

        assert created.dataset.state == pb.DOCUMENT_SET_STATE_FAILED
        assert info.metadata["state"] == "failed"
        assert again.existed
        assert again.dataset.state == pb.DOCUMENT_SET_STATE_READY
        assert len((await stub.SearchPrompt(seed_search())).results) == 4

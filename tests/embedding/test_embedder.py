"""Embedding that goes on over restarts, kills and failures."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from evalpool.channel import open_channel
from evalpool.embedding.v1 import embedding_pb2 as pb
from evalpool.embedding.v1.embedding_pb2_grpc import EmbeddingServiceStub
from evalpool.identity import Identity
from evalpool_embedding.chroma import EmbeddedChroma
from evalpool_embedding.gguf_model import GgufModel
from evalpool_embedding.model import Vectors
from evalpool_embedding.onnx_model import OnnxModel
from evalpool_embedding.sets import MAX_FAILURES
from evalpool_embedding.vectors import VectorIndex
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
from tests.served import Served

if TYPE_CHECKING:
    from evalpool.embedding.v1.embedding_pb2_grpc import EmbeddingServiceAsyncStub


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
    index = VectorIndex(EmbeddedChroma(data_dir / "chroma"))
    (name,) = index.names()
    assert name.startswith(digest)
    index.drop(name)
    index.put("of.nobody", 0, np.eye(1, 384, dtype=np.float32), [{}])
    index.close()

    async with start() as service, calling(service, owner) as stub:
        assert (await until_ready(stub)).state == pb.DOCUMENT_SET_STATE_READY
        assert len((await stub.SearchPrompt(seed_search())).results) == 4
    index = VectorIndex(EmbeddedChroma(data_dir / "chroma"))
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
        early = await refusal(
            EmbeddingServiceStub(channel).SearchPrompt(search),
            grpc.StatusCode.FAILED_PRECONDITION,
            "dataset_hash",
        )
        call.cancel()
        await channel.close()
    finally:
        process.kill()
        await process.wait()
    assert 0 < embedded < 800
    assert early.reason == "DOCUMENT_SET_NOT_READY"
    assert early.metadata["document_count"] == "800"

    async with start() as service, calling(service, owner) as stub:
        found = await stub.GetDataset(pb.GetDatasetRequest(dataset_hash="large"))
        assert embedded <= found.dataset.embedded_count < 800
        last = (await upload(stub, [pb.UploadDatasetRequest(hash="large", list=listed)]))[-1]
        assert last.state == pb.DOCUMENT_SET_STATE_READY
        results = (await stub.SearchPrompt(search)).results
        assert results[0].index == 799
        assert len({each.index for each in results}) == 100


async def test_a_set_that_cannot_be_embedded_fails_and_can_be_tried_again(
    start: Start, owner: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: OnnxModel, texts: Sequence[str]) -> Vectors:
        raise RuntimeError("no more memory")

    monkeypatch.setattr("evalpool_embedding.embedder.FAILED_PAUSE_SECONDS", 0.0)
    async with start() as service, calling(service, owner) as stub:
        with monkeypatch.context() as patched:
            patched.setattr(OnnxModel, "encode", fail)
            created = await stub.CreateDataset(seed_set())
            refused = await refusal(
                stub.SearchPrompt(seed_search()),
                grpc.StatusCode.FAILED_PRECONDITION,
                "dataset_hash",
            )
        again = await stub.CreateDataset(seed_set())

        metrics = service.running.runtime.metrics
        assert metrics.get_sample_value("evalpool_embedding_failures_total") == MAX_FAILURES
        assert metrics.get_sample_value("evalpool_embedding_documents_total") == 4
        assert created.dataset.state == pb.DOCUMENT_SET_STATE_FAILED
        assert refused.metadata["state"] == "failed"
        assert again.existed
        assert again.dataset.state == pb.DOCUMENT_SET_STATE_READY
        assert len((await stub.SearchPrompt(seed_search())).results) == 4


async def test_with_another_model_sets_are_embedded_again_and_not_searched_before(
    start: Start, owner: Identity, minilm_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    real = GgufModel.encode

    def encode(self: GgufModel, texts: Sequence[str]) -> Vectors:
        if len(texts) > 1:  # a set, and no prompt
            gate.wait()
        return real(self, texts)

    async with start() as service, calling(service, owner) as stub:
        before = (await stub.CreateDataset(seed_set())).dataset
        data_dir = service.running.runtime.data_dir
    monkeypatch.setattr(GgufModel, "encode", encode)

    async with start(model=str(minilm_gguf)) as service, calling(service, owner) as stub:
        info = await stub.GetInfo(pb.GetInfoRequest())
        waiting = await stub.GetDataset(pb.GetDatasetRequest(dataset_hash=SEED_HASH))
        refused = await refusal(
            stub.SearchPrompt(seed_search()), grpc.StatusCode.FAILED_PRECONDITION, "dataset_hash"
        )
        gate.set()
        after = await until_ready(stub)
        found = await stub.SearchPrompt(seed_search())

    assert info.model == minilm_gguf.name
    assert before.model_digest != info.model_digest
    assert waiting.dataset.state == pb.DOCUMENT_SET_STATE_EMBEDDING
    assert waiting.dataset.embedded_count == 0
    assert refused.reason == "DOCUMENT_SET_NOT_READY"
    assert refused.metadata["model_digest"] == info.model_digest
    assert after.model_digest == found.model_digest == info.model_digest
    assert {round(each.similarity, 3) for each in found.results} == {0.844, 0.859, 0.89, 0.133}
    index = VectorIndex(EmbeddedChroma(data_dir / "chroma"))
    (name,) = index.names()
    index.close()
    assert info.model_digest[:16] in name, "the old model's vectors are gone"


async def test_an_upload_that_a_killed_process_took_in_leaves_nothing_and_can_be_sent_again(
    owner: Identity, tmp_path: Path, models_dir: Path
) -> None:
    served = Served("embedding", tmp_path / "data")
    half = [document(f"document {n}") for n in range(50)]
    try:
        await served.start("--models-dir", str(models_dir))
        async with connected(served, owner) as stub:
            call: Any = stub.UploadDataset()
            await call.write(pb.UploadDatasetRequest(hash="large", list=half))
            assert (await call.read()).dataset.document_count == 50
            await served.kill()
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()

        await served.start("--models-dir", str(models_dir))
        async with connected(served, owner) as stub:
            assert not (await stub.ListDatasets(pb.ListDatasetsRequest())).datasets
            messages = [
                pb.UploadDatasetRequest(hash="large", list=half),
                pb.UploadDatasetRequest(list=half),
            ]
            last = (await upload(stub, messages))[-1]
            assert last.state == pb.DOCUMENT_SET_STATE_READY
            assert last.embedded_count == 100
    finally:
        await served.kill()


@asynccontextmanager
async def connected(served: Served, identity: Identity) -> AsyncIterator[EmbeddingServiceAsyncStub]:
    channel = open_channel(served.endpoint, identity, served.address, retries=False)
    try:
        yield EmbeddingServiceStub(channel)
    finally:
        await channel.close()

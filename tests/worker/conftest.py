"""The worker's service with a real model, and model files of those who do not mean well."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evalpool.inference.v1 import inference_pb2
from evalpool.models import ModelStore
from evalpool.worker.v1 import worker_pb2_grpc
from evalpool_runtime.testing import ServiceUnderTest, running
from evalpool_worker.service import SERVICE
from tests.worker.service_calls import ROUTER

if TYPE_CHECKING:
    Stub = worker_pb2_grpc.WorkerServiceAsyncStub

WithTemplate = Callable[[str], Path]


@pytest.fixture
def with_template(smollm2_path: Path, tmp_path: Path) -> WithTemplate:
    """Makes SmolLM2 with another chat template, which must not be longer than its own."""

    def make(template: str) -> Path:
        content = bytearray(smollm2_path.read_bytes())
        key = b"tokenizer.chat_template"
        # In a GGUF a value follows its key: the type, 4 bytes, a text's length, 8 bytes, the text.
        place = content.index(key) + len(key) + 4
        [length] = struct.unpack_from("<Q", content, place)
        text = template.encode().ljust(length)
        assert len(text) == length
        content[place + 8 : place + 8 + length] = text
        path = tmp_path / "templated.gguf"
        path.write_bytes(content)
        return path

    return make


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

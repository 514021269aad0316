"""The seed's example, and calls to the service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from evalpool.embedding.v1 import embedding_pb2 as pb
from evalpool.embedding.v1.embedding_pb2_grpc import EmbeddingServiceStub
from evalpool.errors import CallError
from evalpool.identity import Identity
from evalpool_runtime.testing import ServiceUnderTest

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


async def refusal(call: Awaitable[Any], code: grpc.StatusCode, *fields: str) -> CallError:
    """How a call is refused: with this code, for these fields, and with the remedy."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    error = CallError.of(raised.value)
    assert error.code is code, error.message
    assert error.reason
    assert error.message.startswith(tuple(f"{field}: " for field in fields))
    assert "; " in error.message
    if error.violations:
        assert {violation.field for violation in error.violations} == set(fields)
    return error


async def upload(
    stub: EmbeddingServiceAsyncStub, messages: Sequence[pb.UploadDatasetRequest]
) -> list[pb.DocumentSet]:
    call: Any = stub.UploadDataset(iter(messages))
    return [response.dataset async for response in call]

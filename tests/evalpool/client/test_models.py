"""Pushing models into a real router's repository."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from evalpool.client import Client
from evalpool.client.models import CHUNK_BYTES, push, sha256_of
from evalpool.endpoints import Endpoints
from evalpool.identity import Identity
from evalpool.router.v1 import router_pb2
from evalpool.wallet import AddressBook
from evalpool_router.service import SERVICE
from evalpool_runtime.testing import running
from tests.evalpool.models.gguf_writer import Gguf, Tensor


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with running(SERVICE, tmp_path / "router") as router:
        endpoints = Endpoints(router=router.endpoint)
        book = AddressBook(tmp_path / "home")
        async with Client(Identity.generate(), endpoints=endpoints, addresses=book) as made:
            yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A GGUF that takes three messages."""
    path = tmp_path / "mine.gguf"
    weights = 2 * CHUNK_BYTES // 4
    path.write_bytes(
        Gguf(tensors=[Tensor("token_embd.weight", [weights], 0, 0, 4 * weights)]).to_bytes()
    )
    return path


async def begin(client: Client, file: Path, size: int) -> None:
    """Send the beginning of a file, and break off."""

    async def messages() -> AsyncIterator[router_pb2.UploadModelRequest]:
        header = router_pb2.UploadHeader(
            digest=sha256_of(file), size_bytes=file.stat().st_size, name="mine"
        )
        yield router_pb2.UploadModelRequest(header=header)
        yield router_pb2.UploadModelRequest(chunk=file.read_bytes()[:size])

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.router.UploadModel(messages())
    assert caught.value.code() is grpc.StatusCode.ABORTED


async def test_a_file_is_sent_whole_and_named_after_itself(client: Client, file: Path) -> None:
    sent: list[tuple[int, int]] = []
    size = file.stat().st_size

    response = await push(client, file, progress=lambda done, total: sent.append((done, total)))

    assert (response.model.digest, response.model.name) == (sha256_of(file), "mine")
    assert not response.existed
    assert sent == [(CHUNK_BYTES, size), (2 * CHUNK_BYTES, size), (size, size)]


async def test_a_file_that_is_there_is_not_sent_again(client: Client, file: Path) -> None:
    await push(client, file)
    sent: list[int] = []

    response = await push(client, file, name="other", progress=lambda done, _: sent.append(done))

    assert (response.existed, response.model.name) == (True, "mine")
    assert sent == []


async def test_an_upload_that_broke_off_goes_on_where_it_ended(client: Client, file: Path) -> None:
    await begin(client, file, 1000)
    sent: list[int] = []

    response = await push(client, file, progress=lambda done, _: sent.append(done))

    assert response.model.digest == sha256_of(file)
    assert sent[0] == 1000 + CHUNK_BYTES


async def test_two_uploads_of_a_file_at_once_both_end_well(client: Client, file: Path) -> None:
    responses = await asyncio.gather(push(client, file), push(client, file))
    assert {response.model.digest for response in responses} == {sha256_of(file)}


async def test_what_is_refused_is_not_tried_again(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "no.gguf"
    file.write_bytes(b"no model")
    sent: list[int] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await push(client, file, progress=lambda done, _: sent.append(done))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert sent == [8]

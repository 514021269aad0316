"""Models: push a GGUF into the herd's repository."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc

from evalpool.client.connection import Client
from evalpool.router.v1 import router_pb2

CHUNK_BYTES = 512 * 1024
ATTEMPTS = 5


async def push(
    client: Client,
    path: Path,
    *,
    name: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> router_pb2.UploadModelResponse:
    """Upload a GGUF, going on where an earlier upload of it broke off.

    Args:
        client: Who will own it.
        path: The file.
        name: Its name, for people. Default: the file's, without its ending.
        progress: Called with the bytes sent and the bytes in all.

    Raises:
        grpc.aio.AioRpcError: The router refused it.
    """
    size = path.stat().st_size
    digest = await asyncio.to_thread(sha256_of, path)
    for attempt in range(ATTEMPTS):
        upload = await client.router.GetUpload(router_pb2.GetUploadRequest(digest=digest))
        try:
            return await client.router.UploadModel(
                _messages(path, digest, size, name or path.stem, upload, progress), timeout=3600
            )
        except grpc.aio.AioRpcError as error:
            broken = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED)
            if not broken or attempt == ATTEMPTS - 1:
                raise
        await asyncio.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


def sha256_of(path: Path) -> str:
    """A file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _messages(
    path: Path,
    digest: str,
    size: int,
    name: str,
    upload: router_pb2.GetUploadResponse,
    progress: Callable[[int, int], None] | None,
) -> AsyncIterator[router_pb2.UploadModelRequest]:
    yield router_pb2.UploadModelRequest(
        header=router_pb2.UploadHeader(
            digest=digest, size_bytes=size, name=name, offset=upload.offset
        )
    )
    if upload.complete:
        return
    sent = upload.offset
    with path.open("rb") as file:
        file.seek(sent)
        while chunk := file.read(CHUNK_BYTES):
            yield router_pb2.UploadModelRequest(chunk=chunk)
            sent += len(chunk)
            if progress:
                progress(sent, size)

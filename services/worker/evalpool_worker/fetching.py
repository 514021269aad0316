"""Fetching models: from their sources or the herd's repository, into the store, by digest."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Protocol

import grpc

from evalpool.common.v1.error_reason_pb2 import ErrorReason
from evalpool.models import (
    DigestMismatch,
    FetchLimits,
    FetchPolicy,
    InvalidGguf,
    ModelError,
    ModelInUse,
    ModelNotFound,
    ModelStore,
    Upload,
    parse_source,
    pull,
    read_gguf,
)
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool.values import InvalidValue
from evalpool_runtime.errors import FailedPrecondition, reasons

HERD = "herd:"
WAIT_FOR_ANOTHER_WRITER = 0.5
MOST_PULLS = 32

Progress = Callable[[str, float], None]
"""Called with a stage and how far it is, 0 to 1 (0 where unknown), on the event loop."""


class Repository(Protocol):
    """The herd's repository of models."""

    def download(self, digest: str, offset: int) -> AsyncIterator[tuple[bytes, int]]:
        """Yield a model's bytes from an offset, with its size in all."""
        ...


class RouterRepository:
    """The repository of the worker's router."""

    def __init__(self, stub: router_pb2_grpc.RouterServiceAsyncStub) -> None:
        self._stub = stub

    async def download(self, digest: str, offset: int) -> AsyncIterator[tuple[bytes, int]]:
        """Yield a model's bytes from an offset, with its size in all."""
        size = 0
        async for message in self._stub.DownloadModel(
            router_pb2.DownloadModelRequest(digest=digest, offset=offset), timeout=6 * 3600
        ):
            size = message.size_bytes or size
            yield message.chunk, size


class ModelFetcher:
    """Gets model files into a store.

    Args:
        store: Where they are kept.
        repository: The herd's repository, where there is one.
        policy: What may be reached.
    """

    def __init__(
        self, store: ModelStore, repository: Repository | None, policy: FetchPolicy
    ) -> None:
        self._store = store
        self._repository = repository
        self._policy = policy
        # Of its own: a slow source must not keep others from the threads that all share.
        self._threads = ThreadPoolExecutor(MOST_PULLS, thread_name_prefix="evalpool-fetch")

    async def close(self) -> None:
        """Begin nothing new; what is under way ends when it next tells its progress."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def fetch(self, digest: str, sources: Sequence[str], progress: Progress) -> Path:
        """The path of a model's file, fetched where the store does not have it.

        Raises:
            FailedPrecondition: No source gave a GGUF with this digest; says why for each.
        """
        with suppress(ModelNotFound):
            return await asyncio.to_thread(self._store.path, digest)
        problems: list[str] = []
        causes: set[ErrorReason.ValueType] = set()
        for source in sources or (HERD,):
            try:
                if source.startswith(HERD):
                    return await self._from_repository(digest, progress)
                return await self._from_source(digest, source, progress)
            except (ModelError, InvalidValue, OSError) as error:
                problems.append(str(error))
                causes.add(_reason(error))
            except grpc.aio.AioRpcError as error:
                problems.append(f"the herd's repository: {error.details() or error.code().name}")
                causes.add(reasons.ERROR_REASON_MODEL_FETCH_FAILED)
        raise FailedPrecondition(
            _verdict(causes),
            f"model.digest: the model {digest} cannot be fetched: {'; '.join(problems)}",
            digest=digest,
        )

    async def _from_source(self, digest: str, source: str, progress: Progress) -> Path:
        loop = asyncio.get_running_loop()
        cancelled = threading.Event()

        def report(done: int, total: int | None) -> None:
            if cancelled.is_set():
                raise ModelError("the fetch was cancelled")
            share = done / total if total else 0.0
            loop.call_soon_threadsafe(progress, "fetching", share)

        def work() -> Path:
            return pull(
                self._store,
                [parse_source(source)],
                digest=digest,
                progress=report,
                policy=self._policy,
                limits=FetchLimits(),
                check=_check_gguf,
            )

        try:
            return await loop.run_in_executor(self._threads, work)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def _from_repository(self, digest: str, progress: Progress) -> Path:
        if self._repository is None:
            raise ModelError("this worker has no router to fetch it from")
        while not self._store.has(digest):
            try:
                return await self._download(self._repository, digest, progress)
            except ModelInUse:
                # Another worker that shares the store is fetching it.
                progress("fetching", 0.0)
                await asyncio.sleep(WAIT_FOR_ANOTHER_WRITER)
        return await asyncio.to_thread(self._store.path, digest)

    async def _download(self, repository: Repository, digest: str, progress: Progress) -> Path:
        async with aclosing(repository.download(digest, 0)) as chunks:  # type: ignore[type-var]
            beginning = await anext(chunks, None)
            if beginning is None:
                raise ModelError("the herd's repository sent nothing")
            chunk, size = beginning
            with await asyncio.to_thread(self._store.begin_upload, digest, size) as upload:
                if upload.offset == 0:
                    await asyncio.to_thread(upload.write, chunk)
                    await _take(chunks, upload, progress)
                elif upload.offset < size:
                    # A download that was cut off goes on.
                    rest = repository.download(digest, upload.offset)
                    async with aclosing(rest) as chunks:  # type: ignore[type-var]
                        await _take(chunks, upload, progress)
                return await asyncio.to_thread(upload.commit, _check_gguf)


async def _take(
    chunks: AsyncIterator[tuple[bytes, int]], upload: Upload, progress: Progress
) -> None:
    async for chunk, _ in chunks:
        await asyncio.to_thread(upload.write, chunk)
        progress("fetching", upload.offset / upload.size)


def _reason(error: Exception) -> ErrorReason.ValueType:
    if isinstance(error, DigestMismatch):
        return reasons.ERROR_REASON_DIGEST_MISMATCH
    if isinstance(error, InvalidGguf):
        return reasons.ERROR_REASON_INVALID_GGUF
    return reasons.ERROR_REASON_MODEL_FETCH_FAILED


def _verdict(causes: set[ErrorReason.ValueType]) -> ErrorReason.ValueType:
    """What is wrong in all: the content, where that is certain, otherwise the machinery."""
    if reasons.ERROR_REASON_INVALID_GGUF in causes:
        # Looked at only once its digest was right.
        return reasons.ERROR_REASON_INVALID_GGUF
    if causes == {reasons.ERROR_REASON_DIGEST_MISMATCH}:
        return reasons.ERROR_REASON_DIGEST_MISMATCH
    return reasons.ERROR_REASON_MODEL_FETCH_FAILED


def _check_gguf(path: Path) -> None:
    read_gguf(path)

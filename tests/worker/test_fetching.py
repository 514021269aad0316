"""Models come from their sources or the herd's repository, and are what their digests say."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from evalpool.models import FetchPolicy, ModelStore
from evalpool_runtime.errors import FailedPrecondition
from evalpool_worker.fetching import ModelFetcher

CHUNK = 10_000_000


class Repository:
    """Sends a content; stops, or waits, after so many bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.offsets: list[int] = []
        self.cut_after: int | None = None
        self.error: grpc.aio.AioRpcError | None = None
        self.waiting = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def download(self, digest: str, offset: int) -> AsyncIterator[tuple[bytes, int]]:
        self.offsets.append(offset)
        if self.error is not None:
            raise self.error
        for place in range(offset, len(self.content), CHUNK):
            if self.cut_after is not None and place >= self.cut_after:
                raise unavailable()
            yield self.content[place : place + CHUNK], len(self.content)
            self.waiting.set()
            await self.go_on.wait()


def unavailable() -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone away"
    )


@pytest.fixture(scope="module")
def content(smollm2_path: Path) -> bytes:
    return smollm2_path.read_bytes()


@pytest.fixture
def digest(smollm2_path: Path) -> str:
    return smollm2_path.name


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture
def repository(content: bytes) -> Repository:
    return Repository(content)


@pytest.fixture
async def fetcher(
    store: ModelStore, repository: Repository, tmp_path: Path
) -> AsyncIterator[ModelFetcher]:
    made = ModelFetcher(store, repository, FetchPolicy(file_roots=(tmp_path,)))
    yield made
    await made.close()


async def refusal(fetcher: ModelFetcher, digest: str, *sources: str) -> FailedPrecondition:
    with pytest.raises(FailedPrecondition) as caught:
        await fetcher.fetch(digest, sources, lambda _stage, _share: None)
    assert caught.value.message.startswith(f"model.digest: the model {digest} cannot be fetched: ")
    return caught.value


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_without_a_source_it_comes_from_the_repository_with_progress(
    fetcher: ModelFetcher, store: ModelStore, digest: str, content: bytes
) -> None:
    shares: list[float] = []
    path = await fetcher.fetch(digest, (), lambda _stage, share: shares.append(share))
    assert path.read_bytes() == content
    assert store.has(digest)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


async def test_what_the_store_has_is_not_fetched(
    fetcher: ModelFetcher, store: ModelStore, repository: Repository, content: bytes, digest: str
) -> None:
    store.put_stream([content])
    await fetcher.fetch(digest, ("herd:",), lambda _stage, _share: None)
    assert repository.offsets == []


async def test_a_download_that_was_cut_goes_on_where_it_stopped(
    fetcher: ModelFetcher, repository: Repository, content: bytes, digest: str
) -> None:
    repository.cut_after = 3 * CHUNK
    error = await refusal(fetcher, digest, "herd:")
    assert error.reason_name == "MODEL_FETCH_FAILED"
    assert "gone away" in error.message
    repository.cut_after = None
    path = await fetcher.fetch(digest, ("herd:",), lambda _stage, _share: None)
    assert path.read_bytes() == content
    assert repository.offsets == [0, 0, 3 * CHUNK]


async def test_a_cancelled_download_leaves_its_part_for_the_next(
    fetcher: ModelFetcher, repository: Repository, digest: str
) -> None:
    repository.go_on.clear()
    fetching = asyncio.create_task(fetcher.fetch(digest, (), lambda _stage, _share: None))
    await repository.waiting.wait()
    fetching.cancel()
    await asyncio.wait([fetching])
    assert fetching.cancelled()
    repository.go_on.set()
    await fetcher.fetch(digest, (), lambda _stage, _share: None)
    assert repository.offsets == [0, 0, CHUNK]


async def test_two_workers_that_share_a_store_download_once(
    fetcher: ModelFetcher, store: ModelStore, repository: Repository, digest: str
) -> None:
    other = ModelFetcher(store, repository, FetchPolicy())
    repository.go_on.clear()
    waits = asyncio.Event()
    first = asyncio.create_task(fetcher.fetch(digest, (), lambda _stage, _share: None))
    await repository.waiting.wait()
    second = asyncio.create_task(other.fetch(digest, (), lambda _stage, _share: waits.set()))
    await waits.wait()
    repository.go_on.set()
    assert await first == await second
    # The second one asks for the size, finds the first at it, and takes what that has fetched.
    assert repository.offsets.count(CHUNK) == 0
    await other.close()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GGUF, but not of this digest", "DIGEST_MISMATCH"),
        (b"no GGUF at all", "INVALID_GGUF"),
        (b"", "MODEL_FETCH_FAILED"),
    ],
)
async def test_what_the_repository_sends_is_checked(
    fetcher: ModelFetcher, store: ModelStore, repository: Repository, sent: bytes, reason: str
) -> None:
    repository.content = sent
    wanted = sha256(sent) if reason == "INVALID_GGUF" else "ab" * 32
    assert (await refusal(fetcher, wanted)).reason_name == reason
    assert store.entries() == ()


async def test_a_worker_without_a_router_says_so(store: ModelStore) -> None:
    alone = ModelFetcher(store, None, FetchPolicy())
    error = await refusal(alone, "ab" * 32)
    assert error.reason_name == "MODEL_FETCH_FAILED"
    assert "no router" in error.message
    await alone.close()


async def test_the_next_source_is_tried_where_one_fails(
    fetcher: ModelFetcher, smollm2_path: Path, tmp_path: Path, digest: str, content: bytes
) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    path = await fetcher.fetch(
        digest,
        ("file:/nowhere/model.gguf", f"file:{tmp_path / 'model.gguf'}"),
        lambda _stage, _share: None,
    )
    assert path.name == digest


async def test_the_content_is_at_fault_only_where_that_is_certain(
    fetcher: ModelFetcher, tmp_path: Path
) -> None:
    other, right = tmp_path / "other.gguf", tmp_path / "right.gguf"
    other.write_bytes(b"another content")
    right.write_bytes(b"no GGUF")
    digest = sha256(b"no GGUF")
    absent = "file:/nowhere/model.gguf"
    for sources, reason in (
        ((f"file:{other}", f"file:{other}"), "DIGEST_MISMATCH"),
        ((f"file:{other}", absent), "MODEL_FETCH_FAILED"),
        ((absent, f"file:{other}"), "MODEL_FETCH_FAILED"),
        (("ftp:nowhere",), "MODEL_FETCH_FAILED"),
        ((f"file:{other}", absent, f"file:{right}"), "INVALID_GGUF"),
    ):
        assert (await refusal(fetcher, digest, *sources)).reason_name == reason

"""Models come into memory on demand, are shared, and go least recently used, never while in use."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from evalpool.models import ModelInUse, ModelStore
from evalpool_runtime.clock import ManualClock
from evalpool_runtime.errors import FailedPrecondition, Internal, NotFound, ResourceExhausted
from evalpool_worker.engine.base import ChoiceQuestion
from evalpool_worker.engine.fake import FakeEngine
from evalpool_worker.model_host import ModelHost, Progress

SIZE = 100
CONTENTS = {
    hashlib.sha256(content).hexdigest(): content
    for content in (b"GGUF" + letter * (SIZE - 4) for letter in (b"x", b"y", b"z"))
}
QUESTION = ChoiceQuestion("q", "Is it so?", (" yes", " no"))


def damage(path: Path) -> None:
    """Change one byte, as a failing disk does."""
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


class Shelf:
    """Fetches files; waits, and has them evicted or damaged at once, where a test wants it."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self.fetches: list[str] = []
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.cancelled: list[str] = []
        self.evictions = 0
        self.damages = 0

    async def fetch(self, digest: str, sources: Sequence[str], progress: Progress) -> Path:
        self.fetches.append(digest)
        self.arrived.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(digest)
            raise
        if not self._store.has(digest):
            self._store.put_stream([CONTENTS[digest]])
        path = self._store.path(digest)
        progress("fetching", 1.0)
        if self.evictions:
            self.evictions -= 1
            self._store.remove(digest)
        if self.damages:
            self.damages -= 1
            damage(path)
        return path


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture
def shelf(store: ModelStore) -> Shelf:
    return Shelf(store)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def host(store: ModelStore, shelf: Shelf, clock: ManualClock) -> AsyncIterator[ModelHost]:
    made = ModelHost(FakeEngine, store, shelf, 2 * SIZE, clock)
    yield made
    await made.close()


@pytest.fixture
def digests() -> list[str]:
    """Digests of three models that can be fetched."""
    return list(CONTENTS)


def ignore(_stage: str, _share: float) -> None:
    pass


async def use(host: ModelHost, digest: str) -> None:
    async with host.using(digest, "", (), ignore):
        pass


async def score(host: ModelHost, digest: str) -> None:
    async with host.using(digest, "", (), ignore) as engine:
        async for _ in engine.score((QUESTION,)):
            pass


def in_memory(host: ModelHost) -> set[str]:
    return {model.digest for model in host.loaded}


async def test_requests_for_a_model_on_its_way_share_its_fetch(
    host: ModelHost, shelf: Shelf, digests: list[str]
) -> None:
    shelf.open.clear()
    stages: list[list[str]] = [[], []]

    async def one(told: list[str]) -> FakeEngine:
        async with host.using(digests[0], "", (), lambda stage, _: told.append(stage)) as engine:
            assert isinstance(engine, FakeEngine)
            return engine

    both = asyncio.gather(*(one(told) for told in stages))
    await shelf.arrived.wait()
    shelf.open.set()
    first, second = await both
    assert first is second
    assert shelf.fetches == [digests[0]]
    assert stages[0] == stages[1] == ["fetching", "loading", "loading"]


async def test_the_least_recently_used_idle_model_makes_room(
    host: ModelHost, clock: ManualClock, digests: list[str]
) -> None:
    for digest in (digests[0], digests[1], digests[0]):
        clock.advance(timedelta(seconds=1))
        await use(host, digest)
    await use(host, digests[2])
    assert in_memory(host) == {digests[0], digests[2]}


async def test_a_model_in_use_never_goes(host: ModelHost, digests: list[str]) -> None:
    async with AsyncExitStack() as stack:
        for digest in digests[:2]:
            await stack.enter_async_context(host.using(digest, "", (), ignore))
        with pytest.raises(ResourceExhausted, match="no room") as refused:
            await use(host, digests[2])
        assert refused.value.reason_name == "WORKER_BUSY"
        with pytest.raises(ResourceExhausted, match=r"^digest: 1 requests use the model"):
            await host.unload(digests[0])
        assert in_memory(host) == set(digests[:2])
    await use(host, digests[2])
    assert digests[2] in in_memory(host)


async def test_a_model_in_memory_stays_in_the_store(
    host: ModelHost, store: ModelStore, digests: list[str]
) -> None:
    await use(host, digests[0])
    with pytest.raises(ModelInUse):
        store.remove(digests[0])
    await host.unload(digests[0])
    store.remove(digests[0])
    with pytest.raises(NotFound, match=r"^digest: the model .* is not loaded"):
        await host.unload(digests[0])


async def test_a_model_above_the_limit_is_the_workers_lack_and_not_the_models_fault(
    store: ModelStore, shelf: Shelf, clock: ManualClock, digests: list[str]
) -> None:
    small = ModelHost(FakeEngine, store, shelf, SIZE - 1, clock)
    with pytest.raises(Internal, match=r"^model\.digest: .* gives models at most 99") as refused:
        await use(small, digests[0])
    assert refused.value.reason_name == "ENGINE_FAILED"
    store.remove(digests[0])
    await small.close()


async def test_a_file_that_is_no_model_is_told_as_such_and_kept_by_nobody(
    host: ModelHost, store: ModelStore
) -> None:
    digest = store.put_stream([b"no model"])
    with pytest.raises(FailedPrecondition, match=r"^model\.digest: .* cannot be loaded") as refused:
        await use(host, digest)
    assert refused.value.reason_name == "MODEL_LOAD_FAILED"
    assert not host.loaded
    store.remove(digest)


async def test_a_file_that_another_process_evicts_before_it_is_pinned_is_fetched_again(
    host: ModelHost, shelf: Shelf, digests: list[str]
) -> None:
    shelf.evictions = 2
    await use(host, digests[0])
    assert in_memory(host) == {digests[0]}
    assert shelf.fetches == [digests[0]] * 3


async def test_a_file_that_was_damaged_on_the_disk_is_fetched_again(
    host: ModelHost, store: ModelStore, shelf: Shelf, digests: list[str]
) -> None:
    shelf.damages = 1
    await use(host, digests[0])
    assert shelf.fetches == [digests[0]] * 2
    assert store.path(digests[0]).read_bytes() == CONTENTS[digests[0]]


async def test_a_disk_that_damages_every_file_is_blamed_and_not_the_model(
    host: ModelHost, shelf: Shelf, digests: list[str]
) -> None:
    shelf.damages = 10
    with pytest.raises(Internal, match=r"^model\.digest: .* look into its disk") as refused:
        await use(host, digests[0])
    assert refused.value.reason_name == "ENGINE_FAILED"
    assert not host.loaded


async def test_a_load_that_nobody_waits_for_ends(
    host: ModelHost, shelf: Shelf, digests: list[str]
) -> None:
    shelf.open.clear()
    waiting = [asyncio.create_task(use(host, digests[0])) for _ in range(2)]
    await shelf.arrived.wait()
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    assert shelf.cancelled == []
    waiting[1].cancel()
    await asyncio.wait(waiting)
    await asyncio.sleep(0)
    assert shelf.cancelled == [digests[0]]
    shelf.open.set()
    await use(host, digests[0])
    assert in_memory(host) == {digests[0]}


async def test_computed_tokens_never_fall(host: ModelHost, digests: list[str]) -> None:
    seen = [host.computed_tokens]
    for digest in (digests[0], digests[1], digests[0], digests[2], digests[1]):
        await score(host, digest)
        seen.append(host.computed_tokens)
    await host.unload(digests[1])
    assert seen == sorted(set(seen))
    assert host.computed_tokens == seen[-1]


async def test_closing_frees_everything_and_ends_what_loads(
    host: ModelHost, shelf: Shelf, store: ModelStore, digests: list[str]
) -> None:
    await use(host, digests[0])
    shelf.open.clear()
    shelf.arrived.clear()
    waiting = asyncio.create_task(use(host, digests[1]))
    await shelf.arrived.wait()
    await host.close()
    await asyncio.wait([waiting])
    assert not host.loaded
    store.remove(digests[0])

"""The models in memory: loaded on demand, shared by requests, evicted least recently used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from evalpool.models import DigestMismatch, ModelInUse, ModelNotFound, ModelStore
from evalpool_runtime.clock import Clock
from evalpool_runtime.errors import (
    FailedPrecondition,
    Internal,
    NotFound,
    ResourceExhausted,
    reasons,
)
from evalpool_worker.engine.base import Engine
from evalpool_worker.engine.errors import ModelLoadError
from evalpool_worker.engine.info import EngineInfo, EngineLoad, total_load

Progress = Callable[[str, float], None]
RETRY_SECONDS = 1.0
_MOST_DAMAGED = 2
"""Files that may turn out damaged, one fetched after the other, before the disk is blamed."""


class Fetcher(Protocol):
    """Gets a model's file."""

    async def fetch(self, digest: str, sources: Sequence[str], progress: Progress) -> Path:
        """The path of a model's file, fetched where it is missing."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        digest: Its SHA-256.
        name: Its name, for people.
        size_bytes: The size of its file.
        info: What the engine says of it.
        in_use: Requests that use it now.
    """

    digest: str
    name: str
    size_bytes: int
    info: EngineInfo
    in_use: int


class Models(Protocol):
    """The models that a worker answers with: `ModelHost`'s, or a server's one."""

    @property
    def loaded(self) -> list[LoadedModel]:
        """The models that can be used at once, by digest."""
        ...

    @property
    def load_now(self) -> EngineLoad:
        """What the engines have to do at this moment, together; from any thread."""
        ...

    @property
    def computed_tokens(self) -> int:
        """Tokens computed since the start; never falls."""
        ...

    def using(
        self, digest: str, name: str, sources: Sequence[str], progress: Progress
    ) -> AbstractAsyncContextManager[Engine]:
        """Use a model for the length of a block."""
        ...

    async def unload(self, digest: str) -> None:
        """Free a model."""
        ...

    async def close(self) -> None:
        """Free everything."""
        ...


@dataclass
class _Place:
    """A model that is in memory, or on its way there."""

    digest: str
    name: str
    size_bytes: int = 0
    engine: Engine | None = None
    loading: asyncio.Task[Engine] | None = None
    users: int = 0
    last_used: float = 0.0
    watchers: list[Progress] = field(default_factory=list)
    pin: ExitStack = field(default_factory=ExitStack)

    def tell(self, stage: str, share: float) -> None:
        for watcher in self.watchers:
            watcher(stage, share)


class ModelHost:
    """Keeps models loaded under a memory cap; one in use never goes.

    Args:
        make_engine: Makes an engine without a model.
        store: Where files are; a loaded one is pinned there.
        fetcher: Gets files.
        memory_bytes: Bytes of model files to have loaded at most.
        clock: What time it is.
    """

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        store: ModelStore,
        fetcher: Fetcher,
        memory_bytes: int,
        clock: Clock,
    ) -> None:
        self._make_engine = make_engine
        self._store = store
        self._fetcher = fetcher
        self._memory_bytes = memory_bytes
        self._clock = clock
        self._places: dict[str, _Place] = {}
        self._room = asyncio.Lock()
        self._tokens_before = 0

    @property
    def loaded(self) -> list[LoadedModel]:
        """The models in memory, by digest."""
        return [
            LoadedModel(place.digest, place.name, place.size_bytes, info, place.users)
            for place in sorted(self._places.values(), key=lambda place: place.digest)
            if place.engine is not None and (info := place.engine.info) is not None
        ]

    @property
    def load_now(self) -> EngineLoad:
        """What the engines have to do at this moment, together; from any thread."""
        engines = [place.engine for place in list(self._places.values())]
        return total_load(engine.load_now for engine in engines if engine is not None)

    @property
    def computed_tokens(self) -> int:
        """Tokens computed since the start, for questions, prompts and texts; never falls."""
        return self._tokens_before + _tokens(self.load_now)

    @asynccontextmanager
    async def using(
        self, digest: str, name: str, sources: Sequence[str], progress: Progress
    ) -> AsyncIterator[Engine]:
        """Use a model for the length of a block, fetching and loading it where needed.

        Requests for a model that is on its way share its fetch and its loading, which end when
        nobody waits for them any more; what was fetched by then is there for the next one.

        Raises:
            FailedPrecondition: It cannot be fetched or loaded.
            Internal: It is larger than the memory cap, or this worker's disk damages it.
            ResourceExhausted: Models in use leave no room for it now.
        """
        place = self._places.get(digest)
        if place is None:
            place = self._places[digest] = _Place(digest, name or digest[:12])
            place.loading = asyncio.create_task(self._load(place, sources))
            place.loading.add_done_callback(_look_at)
        place.users += 1
        place.watchers.append(progress)
        try:
            engine = place.engine
            if engine is None:
                assert place.loading is not None  # noqa: S101 - set where the place is made
                engine = await asyncio.shield(place.loading)
            yield engine
        finally:
            place.watchers.remove(progress)
            place.users -= 1
            place.last_used = self._clock.monotonic()
            if not place.users and place.engine is None and place.loading is not None:
                self._forget(place)
                place.loading.cancel()

    async def unload(self, digest: str) -> None:
        """Free a model.

        Raises:
            NotFound: It is not loaded.
            FailedPrecondition: It is in use.
        """
        place = self._places.get(digest)
        if place is None or place.engine is None:
            raise NotFound(
                reasons.ERROR_REASON_MODEL_NOT_FOUND,
                f"digest: the model {digest} is not loaded; ListModels lists those that are",
            )
        if place.users:
            raise ResourceExhausted(
                reasons.ERROR_REASON_WORKER_BUSY,
                f"digest: {place.users} requests use the model {digest}; try again later",
                retry_after=RETRY_SECONDS,
            )
        await self._evict(place)

    async def close(self) -> None:
        """Free everything."""
        for place in list(self._places.values()):
            if place.loading is not None and not place.loading.done():
                place.loading.cancel()
                await asyncio.gather(place.loading, return_exceptions=True)
            await self._evict(place)

    async def _load(self, place: _Place, sources: Sequence[str]) -> Engine:
        try:
            path = await self._fetch_and_pin(place, sources)
            place.size_bytes = path.stat().st_size
            async with self._room:
                await self._make_room(place)
                engine = self._make_engine()
                try:
                    await engine.load(
                        path, place.digest, lambda share: place.tell("loading", share)
                    )
                except BaseException:
                    await engine.close()
                    raise
                place.engine = engine
            return engine
        except ModelLoadError as error:
            raise FailedPrecondition(
                reasons.ERROR_REASON_MODEL_LOAD_FAILED,
                f"model.digest: the model {place.digest} cannot be loaded: {error}",
                digest=place.digest,
            ) from error
        finally:
            if place.engine is None:
                # The next request tries anew.
                self._forget(place)
                place.pin.close()

    async def _fetch_and_pin(self, place: _Place, sources: Sequence[str]) -> Path:
        damaged = 0
        while True:
            await self._fetcher.fetch(place.digest, sources, place.tell)
            try:
                # What was right when it was written may have been damaged on the disk since.
                await asyncio.to_thread(self._store.verify, place.digest)
                # For as long as it is loaded: no process that shares the store may evict the file.
                return place.pin.enter_context(self._store.pinned(place.digest))
            except ModelNotFound:
                # One has, in between.
                continue
            except (DigestMismatch, ModelInUse) as error:
                damaged += 1
                if damaged >= _MOST_DAMAGED:
                    raise Internal(
                        reasons.ERROR_REASON_ENGINE_FAILED,
                        f"model.digest: the file of {place.digest} is damaged on this worker's "
                        "disk, and was again after another fetch; look into its disk",
                        digest=place.digest,
                    ) from error

    async def _make_room(self, place: _Place) -> None:
        if place.size_bytes > self._memory_bytes:
            # This worker's limit, and no fault of the model's.
            raise Internal(
                reasons.ERROR_REASON_ENGINE_FAILED,
                f"model.digest: the model {place.digest} has {place.size_bytes} bytes, and this "
                f"worker gives models at most {self._memory_bytes}; use one with more memory",
                digest=place.digest,
            )
        while self._used() + place.size_bytes > self._memory_bytes:
            idle = [p for p in self._places.values() if p.engine is not None and not p.users]
            if not idle:
                raise ResourceExhausted(
                    reasons.ERROR_REASON_WORKER_BUSY,
                    "the models in use leave no room for another one; try again later",
                    retry_after=RETRY_SECONDS,
                )
            await self._evict(min(idle, key=lambda p: p.last_used))

    def _used(self) -> int:
        return sum(p.size_bytes for p in self._places.values() if p.engine is not None)

    async def _evict(self, place: _Place) -> None:
        self._forget(place)
        engine, place.engine = place.engine, None
        try:
            if engine is not None:
                self._tokens_before += _tokens(engine.load_now)
                await engine.close()
        finally:
            place.pin.close()

    def _forget(self, place: _Place) -> None:
        if self._places.get(place.digest) is place:
            del self._places[place.digest]


def _tokens(load: EngineLoad) -> int:
    return load.computed_tokens + load.prompt_tokens + load.completion_tokens


def _look_at(loading: asyncio.Task[Engine]) -> None:
    """Whoever waited may have gone, and nobody else asks for the exception."""
    if not loading.cancelled():
        loading.exception()

"""Embeds the sets that wait for it, from wherever it stands.

The documents lie in the database before anything is computed, and the count of embedded documents
rises only after their vectors are written. A process that dies between the two writes the same
vectors again under the same ids, so that nothing is lost and nothing comes twice.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import structlog

from evalpool_embedding.documents import Document
from evalpool_embedding.metrics import EmbeddingMetrics
from evalpool_embedding.model_source import ModelSource
from evalpool_embedding.sets import Content, DocumentSet, SetState
from evalpool_embedding.store import contents, documents, sets, uploads
from evalpool_embedding.vectors import VectorIndex
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database
from evalpool_runtime.errors import Unavailable
from evalpool_runtime.watch import Changes

CHUNK = 128
"""Documents between two commits."""

POLL_SECONDS = 5.0
"""How long work that another process left can go unnoticed."""

PROGRESS_POLL_SECONDS = 0.5
"""How long the progress of another process, or the service's stop, can go unnoticed."""

FAILED_PAUSE_SECONDS = 0.5
AWAY_PAUSE_SECONDS = 1.0
STALE_UPLOAD = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Chunk:
    content: Content
    listed: list[Document]

    @property
    def end(self) -> int:
        return self.content.embedded_count + len(self.listed)


class Embedder:
    """Computes the vectors of sets, taking turns between them.

    Args:
        database: Where the documents are.
        vectors: Where the vectors go.
        models: The model.
        clock: What time it is.
        metrics: Counts what is embedded.
        stopping: Set when the service stops; who waits for progress is let go then.
    """

    def __init__(
        self,
        database: Database,
        vectors: VectorIndex,
        models: ModelSource,
        clock: Clock,
        metrics: EmbeddingMetrics,
        stopping: asyncio.Event,
    ) -> None:
        self._database = database
        self._vectors = vectors
        self._models = models
        self._clock = clock
        self._metrics = metrics
        self._stopping = stopping
        # Of our own, so that no write is under way any more when Chroma is closed.
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="vectors-write")
        self._log = structlog.get_logger("evalpool.embedding")
        self._is_compared = False
        self._work = Changes()
        self._progress = Changes()

    def notify(self) -> None:
        """Say that there is something to embed."""
        self._work.notify()

    async def run(self) -> None:
        """Embed whatever waits, until cancelled."""
        await self._models.wait()
        while True:
            seen = self._work.version
            try:
                if not self._is_compared:
                    await self.compare()
                if not await self.step():
                    await self._work.wait(seen, POLL_SECONDS)
            except Unavailable:
                # Chroma or the database is away, which is no set's fault.
                await asyncio.sleep(AWAY_PAUSE_SECONDS)

    async def step(self) -> bool:
        """Embed the next documents of the set whose turn it is; False where none waits.

        Raises:
            Unavailable: The database or Chroma's server is away; nothing changed.
        """
        digest = self._models.digest
        content = await self._database.read(lambda c: contents.next_to_embed(c, digest))
        if content is None:
            return False
        try:
            await self._embed(content)
        except Unavailable:
            raise
        except Exception as error:
            # One set's trouble must not keep the others waiting: it goes to the end of the row.
            self._metrics.failures.inc()
            self._log.warning("embedding failed", digest=content.digest, exc_info=error)
            failure = f"{type(error).__name__}: {error}"[:500]
            now = self._clock.now()
            await self._database.write(lambda c: contents.note_failure(c, content.id, failure, now))
            await asyncio.sleep(FAILED_PAUSE_SECONDS)
        self._progress.notify()
        return True

    async def start(self) -> None:
        """Put what is stored in order, as far as what is needed is there; `run` does the rest."""
        await self.adopt()
        try:
            await self.compare()
        except Unavailable:
            self._log.info("vectors are compared later: Chroma's server is away")

    async def adopt(self) -> None:
        """Have all sets of another model embedded by this one, from their beginning.

        Until then they cannot be searched: vectors of two models are never compared.
        """
        digest, now = self._models.digest, self._clock.now()
        adopted = await self._database.write(lambda c: contents.adopt(c, digest, now))
        if adopted:
            self._log.info(
                "the embedding model is another one; all sets are embedded again",
                model=self._models.name,
                sets=adopted,
            )

    async def compare(self) -> None:
        """Make database and vectors agree: each may have died before the other.

        Sets whose vectors are not all there are embedded again.

        Raises:
            Unavailable: The database or Chroma's server is away.
        """
        for content in await self._database.read(contents.every):
            there = await asyncio.to_thread(self._vectors.count, content.collection)
            if there < content.embedded_count:
                await self.begin_again(content)
        await self.drop_strays()
        self._is_compared = True

    async def begin_again(self, content: Content) -> None:
        """Have a content embedded from its beginning, because its vectors are lost."""
        self._log.warning("vectors are lost and computed again", digest=content.digest)
        now = self._clock.now()
        await self._database.write(
            lambda c: contents.embed_again(c, content.id, content.model_digest, now)
        )
        self.notify()

    async def drop(self, content: Content) -> None:
        """Delete the vectors of a content that was deleted; `drop_strays` does where this fails."""
        try:
            await asyncio.to_thread(self._vectors.drop, content.collection)
        except Unavailable:
            self._log.info("vectors are deleted later", digest=content.digest)

    async def drop_strays(self) -> None:
        """Delete vectors of sets that are gone, or were embedded by another model.

        Raises:
            Unavailable: The database or Chroma's server is away.
        """
        # Read in this order: a collection is made after its content, and deleted after it.
        there = await asyncio.to_thread(self._vectors.names)
        wanted = {content.collection for content in await self._database.read(contents.every)}
        for name in there - wanted:
            await asyncio.to_thread(self._vectors.drop, name)

    async def sweep(self) -> None:
        """Forget uploads that nobody goes on with, and vectors that are nobody's."""
        before = self._clock.now() - STALE_UPLOAD
        await self._database.write(lambda c: uploads.discard_stale(c, before))
        try:
            await self.drop_strays()
        except Unavailable:
            self._log.info("vectors that are nobody's are deleted later: they are out of reach")

    async def progress(
        self, owner: str, alias: str, digest: str, seconds: float = math.inf
    ) -> AsyncIterator[DocumentSet]:
        """A set whenever it has come on, until it is ready or failed.

        Ends earlier when it is deleted, when the service stops and when the time is up.

        Args:
            owner: Whose set it is.
            alias: The owner's name for it.
            digest: Its content's digest.
            seconds: How long to wait at most.

        Yields:
            The set as it now is.
        """
        end = self._clock.monotonic() + seconds
        shown: Content | None = None
        while True:
            seen = self._progress.version
            found = await self._database.read(lambda c: sets.find_own(c, owner, alias))
            if found is None or found.content.digest != digest:
                return
            if found.content != shown:
                shown = found.content
                yield found
            left = end - self._clock.monotonic()
            if not shown.is_embedding or left <= 0 or self._stopping.is_set():
                return
            await self._progress.wait(seen, min(left, PROGRESS_POLL_SECONDS))

    async def close(self) -> None:
        """Wait for the write that is under way."""
        await asyncio.to_thread(self._writing.shutdown)

    async def _embed(self, content: Content) -> None:
        listed = await self._database.read(
            lambda c: documents.listed_from(c, content.id, content.embedded_count, CHUNK)
        )
        if not listed:
            return  # deleted meanwhile
        chunk = _Chunk(content, listed)
        encoder = await self._models.wait()
        with self._metrics.set_seconds.time():
            vectors = await encoder.encode_set([document.content for document in listed])
        await asyncio.get_running_loop().run_in_executor(
            self._writing,
            self._vectors.put,
            content.collection,
            content.embedded_count,
            vectors,
            [document.meta for document in listed],
        )
        now = self._clock.now()
        advanced = await self._database.write(
            lambda c: contents.advance(c, content, chunk.end, now)
        )
        if advanced is not None:
            self._metrics.documents.inc(len(listed))
            if advanced.state is SetState.READY:
                self._log.info(
                    "set embedded", digest=content.digest, documents=content.document_count
                )
        elif not await self._database.read(lambda c: contents.get(c, content.id)):
            # Deleted while its vectors were computed.
            await self.drop(content)

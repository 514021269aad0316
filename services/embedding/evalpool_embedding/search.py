"""Looks sets up, and finds the documents nearest to a prompt."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from evalpool_embedding.documents import Document, Meta
from evalpool_embedding.embedder import Embedder
from evalpool_embedding.encoder import Encoder
from evalpool_embedding.metrics import EmbeddingMetrics
from evalpool_embedding.model import Vectors
from evalpool_embedding.model_source import ModelSource
from evalpool_embedding.sets import (
    Content,
    DocumentSet,
    check_searchable,
    not_found,
    vectors_lost,
)
from evalpool_embedding.store import contents, documents, sets
from evalpool_embedding.vectors import VectorIndex
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database


@dataclass(frozen=True, slots=True)
class Found:
    """A document that was found.

    Attributes:
        document: The document.
        index: Its place in the set.
        similarity: The cosine of the angle between it and the prompt, -1 to 1.
    """

    document: Document
    index: int
    similarity: float


class Search:
    """Searches sets.

    Args:
        database: Where the documents are.
        vectors: Where their vectors are.
        models: The model.
        embedder: Computes vectors again that turn out to be lost.
        metrics: Times the parts of a search.
        clock: What time it is.
    """

    def __init__(
        self,
        database: Database,
        vectors: VectorIndex,
        models: ModelSource,
        embedder: Embedder,
        metrics: EmbeddingMetrics,
        clock: Clock,
    ) -> None:
        self._database = database
        self._vectors = vectors
        self._models = models
        self._embedder = embedder
        self._metrics = metrics
        self._clock = clock

    async def look_up(self, caller: str, name: str, *, of_anybody: bool) -> DocumentSet:
        """The set that a caller means.

        Args:
            caller: Who asks.
            name: The caller's name for the set, or its digest.
            of_anybody: Whether the caller may look up everybody's sets, by digest, because runs
                need them. What is looked up so is entered: it is kept from deletion from then on.

        Raises:
            NotFound: There is no such set, or it is somebody else's.
        """
        named = await self._database.read(
            partial(sets.find, caller=caller, name=name, of_anybody=of_anybody)
        )
        if not of_anybody or named.content.is_entered or name != named.content.digest:
            return named
        now = self._clock.now()
        return await self._database.write(lambda c: sets.enter(c, caller, name, now))

    async def nearest(
        self, caller: str, name: str, prompt: str, top_k: int, where: Meta, *, of_anybody: bool
    ) -> list[Found]:
        """The documents of a set nearest to a prompt, nearest first.

        Args:
            caller: Who asks.
            name: The caller's name for the set, or its digest.
            prompt: What to look for.
            top_k: Documents at most.
            where: Only documents whose meta has these values.
            of_anybody: As for `look_up`.

        Raises:
            NotFound: There is no such set, or it is somebody else's.
            FailedPrecondition: It is still being embedded, or could not be.
            Unavailable: The model is not loaded yet, or Chroma's server is away.
        """
        # The model is at the prompt while the database is asked for the set.
        encoding = asyncio.create_task(self._encode(self._models.encoder(), prompt))
        try:
            content = (await self.look_up(caller, name, of_anybody=of_anybody)).content
            check_searchable(content, name, self._models.digest)
            vector = await encoding
        finally:
            encoding.cancel()
        try:
            found = await asyncio.to_thread(self._find, content, vector, top_k, where)
        except LookupError as error:
            raise await self._without_vectors(content, name) from error
        if found is None:
            raise not_found("dataset_hash", name)  # deleted since its vectors were read
        return found

    def _find(
        self, content: Content, vector: Vectors, top_k: int, where: Meta
    ) -> list[Found] | None:
        """What is nearest, with its texts; None where these are gone. Blocks.

        Both in one thread: each change of threads costs a call a tenth of a millisecond or more.
        """
        with self._metrics.nearest_seconds.time():
            neighbours = self._vectors.nearest(content.collection, vector, top_k, where)
        places = [each.index for each in neighbours]
        texts = self._database.read_here(lambda c: documents.at_places(c, content.id, places))
        if neighbours and not texts:
            return None
        return [
            Found(texts[each.index], each.index, each.similarity)
            for each in neighbours
            if each.index in texts
        ]

    async def _encode(self, encoder: Encoder, prompt: str) -> Vectors:
        with self._metrics.prompt_seconds.time():
            vector: Vectors = (await encoder.encode([prompt]))[0]
        return vector

    async def _without_vectors(self, content: Content, name: str) -> Exception:
        """What a caller learns whose set has no vectors, against what is stored of it."""
        now = await self._database.read(lambda c: contents.get(c, content.id))
        if now is None or now.collection != content.collection:
            return not_found("dataset_hash", name)  # deleted between the two reads
        await self._embedder.begin_again(content)
        return vectors_lost(name)

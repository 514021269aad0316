"""Finds the documents nearest to a prompt."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from evalpool_embedding.documents import Document, Meta
from evalpool_embedding.model_source import ModelSource
from evalpool_embedding.sets import check_searchable, not_found
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
        clock: What time it is.
    """

    def __init__(
        self, database: Database, vectors: VectorIndex, models: ModelSource, clock: Clock
    ) -> None:
        self._database = database
        self._vectors = vectors
        self._models = models
        self._clock = clock

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
            of_anybody: Whether the caller may search others' sets, because they are entered in
                pools; they are kept from deletion from then on.

        Raises:
            NotFound: There is no such set, or it is somebody else's.
            FailedPrecondition: It is still being embedded, or could not be.
            Unavailable: The model is not loaded yet.
        """
        named = await self._database.read(
            partial(sets.find, caller=caller, name=name, of_anybody=of_anybody)
        )
        content = named.content
        check_searchable(content, name)
        encoder = self._models.encoder()
        if of_anybody and named.owner != caller and not content.is_entered:
            now = self._clock.now()
            await self._database.write(lambda c: contents.mark_entered(c, content.id, now))
        vector = (await encoder.encode([prompt]))[0]
        try:
            neighbours = await asyncio.to_thread(
                self._vectors.nearest, content.collection, vector, top_k, where
            )
        except LookupError as error:
            # Deleted between the two reads.
            raise not_found("dataset_hash", name) from error
        found = await self._database.read(
            lambda c: documents.at_places(c, content.id, [each.index for each in neighbours])
        )
        if neighbours and not found:
            raise not_found("dataset_hash", name)  # deleted since its vectors were read
        return [
            Found(found[each.index], each.index, each.similarity)
            for each in neighbours
            if each.index in found
        ]

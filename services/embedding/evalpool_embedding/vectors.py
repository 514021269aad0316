"""Vectors in Chroma: one collection a set of documents, searched by the cosine.

Chroma holds vectors and meta only; the documents' texts are in the service's database, which finds
them by their place in the set. A document's id in its collection is that place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromadb
from chromadb.config import Settings
from chromadb.errors import NotFoundError

from evalpool_embedding.documents import Meta
from evalpool_embedding.model import Vectors

if TYPE_CHECKING:
    from chromadb.api.client import Client

# The graph's width while it is built and while it is searched.
_CONFIGURATION: Any = {"hnsw": {"space": "cosine", "ef_construction": 100, "ef_search": 100}}

# Chroma keeps names of its own, such as "chroma:document"; with a prefix none of ours meets them.
_PREFIX = "meta."


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A document near to a vector.

    Attributes:
        index: Its place in the set.
        similarity: The cosine of the angle between the two, -1 to 1.
    """

    index: int
    similarity: float


class VectorIndex:
    """The collections of a Chroma client. Every method blocks; all are safe in threads.

    Args:
        client: Chroma, embedded or on a server.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._largest = client.get_max_batch_size()

    @classmethod
    def embedded(cls, path: Path) -> VectorIndex:
        """Open Chroma in this process, with its files in a folder of its own."""
        path.mkdir(parents=True, exist_ok=True)
        settings = Settings(anonymized_telemetry=False, is_persistent=True)
        client: Any = chromadb.PersistentClient(str(path), settings=settings)
        return cls(client)

    def put(self, name: str, first: int, vectors: Vectors, metas: Sequence[Meta]) -> None:
        """Write the vectors of the documents from place `first` on; again is no change.

        Args:
            name: The collection, made where there is none.
            first: The place of the first document.
            vectors: One a document.
            metas: One a document.
        """
        collection = self._client.get_or_create_collection(
            name, configuration=_CONFIGURATION, embedding_function=None
        )
        for start in range(0, len(metas), self._largest):
            part = slice(start, start + self._largest)
            collection.upsert(
                ids=[str(first + start + place) for place in range(len(metas[part]))],
                embeddings=vectors[part],
                # Chroma takes no empty meta.
                metadatas=[_prefixed(meta) or None for meta in metas[part]],  # type: ignore[misc]
            )

    def nearest(self, name: str, vector: Vectors, top_k: int, where: Meta) -> list[Neighbour]:
        """The documents nearest to a vector, nearest first, equals by their place.

        Args:
            name: The collection.
            vector: What to look for, shape (dimensions,).
            top_k: Documents at most.
            where: Only documents whose meta has these values; all where it is empty.

        Raises:
            LookupError: There is no such collection.
        """
        try:
            collection = self._client.get_collection(name, embedding_function=None)
        except NotFoundError as error:
            raise LookupError(name) from error
        found = collection.query(
            query_embeddings=vector[None, :],
            n_results=top_k,
            where=_condition(where),
            include=["distances"],
        )
        distances = found["distances"] or [[]]
        # Chroma's distance in the cosine space is 1 minus the cosine, up to rounding.
        neighbours = [
            Neighbour(int(place), min(1.0, max(-1.0, 1.0 - distance)))
            for place, distance in zip(found["ids"][0], distances[0], strict=True)
        ]
        return sorted(neighbours, key=lambda each: (-each.similarity, each.index))

    def count(self, name: str) -> int:
        """How many vectors a collection has; 0 where there is none."""
        try:
            return self._client.get_collection(name, embedding_function=None).count()
        except NotFoundError:
            return 0

    def names(self) -> set[str]:
        """The collections that there are."""
        return {collection.name for collection in self._client.list_collections()}

    def drop(self, name: str) -> None:
        """Delete a collection; none is no error."""
        try:
            self._client.delete_collection(name)
        except NotFoundError:
            return

    def close(self) -> None:
        """Let go of Chroma and its files."""
        self._client.close()


def _prefixed(meta: Meta) -> dict[str, Any]:
    return {_PREFIX + name: value for name, value in meta.items()}


def _condition(where: Meta) -> Any:
    parts = [{name: {"$eq": value}} for name, value in sorted(_prefixed(where).items())]
    if len(parts) > 1:
        return {"$and": parts}
    return parts[0] if parts else None

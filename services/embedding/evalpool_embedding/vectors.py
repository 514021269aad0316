"""Vectors in Chroma: one collection a set of documents, searched by the cosine.

Chroma holds vectors and meta only; the documents' texts are in the service's database, which finds
them by their place in the set. A document's id in its collection is that place.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chromadb.api import ServerAPI
from chromadb.api.models.Collection import Collection
from chromadb.errors import NotFoundError
from chromadb.types import Collection as CollectionModel

from evalpool_embedding.chroma import Chroma
from evalpool_embedding.documents import Meta
from evalpool_embedding.model import Vectors

CONFIGURATION: Any = {"hnsw": {"space": "cosine", "ef_construction": 100, "ef_search": 100}}
"""Of a collection: the graph's width while it is built and while it is searched."""

# Chroma keeps names of its own, such as "chroma:document"; with a prefix none of ours meets them.
_PREFIX = "meta."

# Collections whose place in Chroma is remembered.
_REMEMBERED = 1000

# A server lists no more at once unless it is asked to go on.
_LISTED = 100


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
    """The collections of a service. Every method blocks; all are safe in threads.

    Every method raises `Unavailable` where Chroma is on a server that is away.

    Args:
        chroma: Where the collections are.
    """

    def __init__(self, chroma: Chroma) -> None:
        self._chroma = chroma
        # By name, the last searched last: asking Chroma for one takes an eighth of a search.
        self._found: OrderedDict[str, Collection] = OrderedDict()
        self._found_lock = threading.Lock()

    def put(self, name: str, first: int, vectors: Vectors, metas: Sequence[Meta]) -> None:
        """Write the vectors of the documents from place `first` on; again is no change.

        Args:
            name: The collection, made where there is none.
            first: The place of the first document.
            vectors: One a document.
            metas: One a document.
        """
        with self._chroma.opened() as api:
            collection = _collection(
                api, api.get_or_create_collection(self._own(name), configuration=CONFIGURATION)
            )
            largest = api.get_max_batch_size()
            for start in range(0, len(metas), largest):
                part = slice(start, start + largest)
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
        with self._chroma.opened() as api:
            try:
                try:
                    found = _query(self._collection(api, name), vector, top_k, where)
                except NotFoundError:
                    # It may have been made anew since it was last found.
                    self._forget(name)
                    found = _query(self._collection(api, name), vector, top_k, where)
            except NotFoundError as error:
                raise LookupError(name) from error
        distances = found["distances"] or [[]]
        # Chroma's distance in the cosine space is 1 minus the cosine, up to rounding.
        neighbours = [
            Neighbour(int(place), min(1.0, max(-1.0, 1.0 - distance)))
            for place, distance in zip(found["ids"][0], distances[0], strict=True)
        ]
        return sorted(neighbours, key=lambda each: (-each.similarity, each.index))

    def count(self, name: str) -> int:
        """How many vectors a collection has; 0 where there is none."""
        with self._chroma.opened() as api:
            try:
                return _collection(api, api.get_collection(self._own(name))).count()
            except NotFoundError:
                return 0

    def names(self) -> set[str]:
        """The collections that there are."""
        prefix = self._chroma.prefix
        found: list[str] = []
        with self._chroma.opened() as api:
            while len(found) % _LISTED == 0:
                listed = api.list_collections(limit=_LISTED, offset=len(found))
                if not listed:
                    break
                found += [collection.name for collection in listed]
        return {name.removeprefix(prefix) for name in found if name.startswith(prefix)}

    def drop(self, name: str) -> None:
        """Delete a collection; none is no error."""
        self._forget(name)
        with self._chroma.opened() as api:
            try:
                api.delete_collection(self._own(name))
            except NotFoundError:
                return

    def close(self) -> None:
        """Let go of Chroma and its files."""
        self._chroma.close()

    def _own(self, name: str) -> str:
        return self._chroma.prefix + name

    def _collection(self, api: ServerAPI, name: str) -> Collection:
        with self._found_lock:
            found = self._found.get(name)
        if found is None:
            found = _collection(api, api.get_collection(self._own(name)))
        with self._found_lock:
            self._found[name] = found
            self._found.move_to_end(name)
            if len(self._found) > _REMEMBERED:
                self._found.popitem(last=False)
        return found

    def _forget(self, name: str) -> None:
        with self._found_lock:
            self._found.pop(name, None)


def _query(collection: Collection, vector: Vectors, top_k: int, where: Meta) -> Any:
    return collection.query(
        query_embeddings=vector[None, :],
        n_results=top_k,
        where=_condition(where),
        include=["distances"],
    )


def _collection(api: ServerAPI, model: CollectionModel) -> Collection:
    return Collection(api, model, embedding_function=None)


def _prefixed(meta: Meta) -> dict[str, Any]:
    return {_PREFIX + name: value for name, value in meta.items()}


def _condition(where: Meta) -> Any:
    parts = [{name: {"$eq": value}} for name, value in sorted(_prefixed(where).items())]
    if len(parts) > 1:
        return {"$and": parts}
    return parts[0] if parts else None

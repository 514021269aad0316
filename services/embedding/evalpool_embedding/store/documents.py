"""The documents of contents, by their places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, insert, select

from evalpool_embedding.documents import Document
from evalpool_embedding.schema import documents


def add(connection: Connection, content_id: int, first: int, listed: Sequence[Document]) -> None:
    """Keep documents at the places from `first` on."""
    connection.execute(
        insert(documents),
        [
            {
                "content_id": content_id,
                "place": place,
                "content": document.content,
                "meta": dict(document.meta),
            }
            for place, document in enumerate(listed, first)
        ],
    )


def listed_from(connection: Connection, content_id: int, first: int, limit: int) -> list[Document]:
    """The documents from place `first` on, at most `limit`."""
    rows = connection.execute(
        select(documents.c.content, documents.c.meta)
        .where(
            documents.c.content_id == content_id,
            documents.c.place >= first,
            documents.c.place < first + limit,
        )
        .order_by(documents.c.place)
    )
    return [Document(row.content, row.meta) for row in rows]


def at_places(
    connection: Connection, content_id: int, places: Iterable[int]
) -> dict[int, Document]:
    """Documents by their places; those that a deletion took are left out."""
    rows = connection.execute(
        select(documents.c.place, documents.c.content, documents.c.meta).where(
            documents.c.content_id == content_id, documents.c.place.in_(list(places))
        )
    )
    return {row.place: Document(row.content, row.meta) for row in rows}

"""Document sets on both databases, made and brought on by tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from evalpool_embedding.documents import Document, content_digest
from evalpool_embedding.sets import Content, DocumentSet
from evalpool_embedding.store import contents, sets, uploads
from evalpool_runtime.database import Database

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = "a" * 64
THREE = [Document("one", {"n": 1.0}), Document("two", {"is": True}), Document("three", {"s": "é"})]
OTHER = [Document("other", {})]


async def create(
    database: Database, owner: str, alias: str, listed: list[Document], *, at: int = 0
) -> tuple[DocumentSet, bool]:
    return await database.write(
        partial(
            sets.create,
            owner=owner,
            alias=alias,
            digest=content_digest(listed),
            listed=listed,
            model_digest=MODEL,
            now=NOW + timedelta(seconds=at),
        )
    )


async def next_to_embed(database: Database) -> Content | None:
    return await database.read(lambda c: contents.next_to_embed(c, MODEL))


async def advance(database: Database, content: Content, count: int) -> Content | None:
    return await database.write(
        partial(contents.advance, content=content, embedded_count=count, now=NOW)
    )


async def upload(database: Database, listed: list[Document]) -> int:
    content_id = await database.write(lambda c: uploads.begin(c, MODEL, NOW))
    for document in listed:
        await database.write(partial(_extend, content_id=content_id, document=document))
    return content_id


async def upload_more(database: Database, content_id: int) -> int:
    return await database.write(
        partial(_extend, content_id=content_id, document=Document("more", {}))
    )


def _extend(connection: object, content_id: int, document: Document) -> int:
    return uploads.extend(connection, content_id, [document], NOW)  # type: ignore[arg-type]


async def finish(
    database: Database, content_id: int, owner: str, listed: list[Document]
) -> tuple[DocumentSet, bool]:
    return await database.write(
        partial(
            sets.finish_upload,
            content_id=content_id,
            owner=owner,
            alias="set",
            digest=content_digest(listed),
            now=NOW,
        )
    )

"""Uploads: contents whose documents are still coming in. Nobody sees them before their end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from evalpool_embedding.documents import Document
from evalpool_embedding.schema import contents
from evalpool_embedding.sets import SetState
from evalpool_embedding.store import documents


def begin(connection: Connection, model_digest: str, now: datetime) -> int:
    """Make room for documents that will come in; returns the id of their content."""
    made = connection.execute(
        insert(contents)
        .values(
            state=SetState.UPLOADING,
            document_count=0,
            embedded_count=0,
            failures=0,
            failure="",
            model_digest=model_digest,
            create_time=now,
            update_time=now,
        )
        .returning(contents.c.id)
    )
    return int(made.scalar_one())


def extend(
    connection: Connection, content_id: int, listed: Sequence[Document], now: datetime
) -> int:
    """Add documents to an upload; returns how many it has now.

    Raises:
        LookupError: The upload was swept, because nothing came for too long.
    """
    count = connection.scalar(
        select(contents.c.document_count)
        .where(contents.c.id == content_id, contents.c.state == SetState.UPLOADING)
        .with_for_update()
    )
    if count is None:
        raise LookupError(content_id)
    documents.add(connection, content_id, count, listed)
    connection.execute(
        update(contents)
        .where(contents.c.id == content_id)
        .values(document_count=count + len(listed), update_time=now)
    )
    return int(count) + len(listed)


def keep(connection: Connection, content_id: int, digest: str, now: datetime) -> bool:
    """Make an upload the content of its digest; False where there is one already.

    Raises:
        LookupError: The upload was swept, because nothing came for too long.
    """
    try:
        with connection.begin_nested():
            kept = connection.execute(
                update(contents)
                .where(contents.c.id == content_id, contents.c.state == SetState.UPLOADING)
                .values(digest=digest, state=SetState.EMBEDDING, update_time=now)
            )
    except IntegrityError:
        return False
    if not kept.rowcount:
        raise LookupError(content_id)
    return True


def discard(connection: Connection, content_id: int) -> None:
    """Forget an upload that did not come to its end; one that did, or is gone, is left alone."""
    _delete(connection, [content_id])


def discard_stale(connection: Connection, before: datetime) -> int:
    """Forget uploads to which nothing came since `before`; returns how many."""
    stale = list(
        connection.scalars(
            select(contents.c.id)
            .where(contents.c.state == SetState.UPLOADING, contents.c.update_time < before)
            .with_for_update()
        )
    )
    _delete(connection, stale)
    return len(stale)


def _delete(connection: Connection, ids: Sequence[int]) -> None:
    connection.execute(
        delete(contents).where(contents.c.id.in_(ids), contents.c.state == SetState.UPLOADING)
    )

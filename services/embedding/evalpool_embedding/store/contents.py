"""Contents, and how far their embedding has come."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from evalpool_embedding.schema import contents
from evalpool_embedding.sets import MAX_FAILURES, Content, SetState


def get(connection: Connection, content_id: int) -> Content | None:
    """A content; None where it was deleted."""
    return _first(connection.execute(select(contents).where(contents.c.id == content_id)).first())


def lock(connection: Connection, content_id: int) -> Content | None:
    """A content; None where it was deleted. Nobody else changes it in this transaction."""
    query = select(contents).where(contents.c.id == content_id).with_for_update()
    return _first(connection.execute(query).first())


def lock_by_digest(connection: Connection, digest: str) -> Content | None:
    """The content of a digest, None where there is none, held against deletion."""
    query = select(contents).where(contents.c.digest == digest).with_for_update()
    return _first(connection.execute(query).first())


def every(connection: Connection) -> list[Content]:
    """Every content that has a digest."""
    rows = connection.execute(select(contents).where(contents.c.digest.is_not(None)))
    return [from_row(row) for row in rows]


def delete_content(connection: Connection, content_id: int) -> None:
    """Delete a content and its documents; no set may name it any more."""
    connection.execute(delete(contents).where(contents.c.id == content_id))


def mark_entered(connection: Connection, content_id: int, now: datetime) -> None:
    """Note that a content is used for a pool; the first time counts."""
    connection.execute(
        update(contents)
        .where(contents.c.id == content_id, contents.c.enter_time.is_(None))
        .values(enter_time=now)
    )


def next_to_embed(connection: Connection, model_digest: str) -> Content | None:
    """The content of this model whose turn it is: the one worked on least recently."""
    query = (
        select(contents)
        .where(contents.c.state == SetState.EMBEDDING, contents.c.model_digest == model_digest)
        .order_by(contents.c.update_time, contents.c.id)
        .limit(1)
    )
    return _first(connection.execute(query).first())


def advance(
    connection: Connection, content: Content, embedded_count: int, now: datetime
) -> Content | None:
    """Note that vectors were written.

    Returns:
        The content as it now is; None where it was deleted or somebody else went on with it.
    """
    state = SetState.READY if embedded_count == content.document_count else SetState.EMBEDDING
    changed = connection.execute(
        update(contents)
        .where(
            contents.c.id == content.id,
            contents.c.state == SetState.EMBEDDING,
            contents.c.embedded_count == content.embedded_count,
            contents.c.model_digest == content.model_digest,
        )
        .values(embedded_count=embedded_count, state=state, failures=0, failure="", update_time=now)
    )
    return get(connection, content.id) if changed.rowcount else None


def note_failure(connection: Connection, content_id: int, failure: str, now: datetime) -> None:
    """Count a failure to embed; the fifth in a row ends it."""
    content = lock(connection, content_id)
    if content is None or not content.is_embedding:
        return
    failures = content.failures + 1
    connection.execute(
        update(contents)
        .where(contents.c.id == content_id)
        .values(
            failures=failures,
            failure=failure,
            state=SetState.FAILED if failures >= MAX_FAILURES else SetState.EMBEDDING,
            update_time=now,
        )
    )


def embed_again(connection: Connection, content_id: int, model_digest: str, now: datetime) -> None:
    """Have a content embedded from its beginning."""
    connection.execute(
        update(contents)
        .where(contents.c.id == content_id, contents.c.state != SetState.UPLOADING)
        .values(
            state=SetState.EMBEDDING,
            embedded_count=0,
            failures=0,
            failure="",
            model_digest=model_digest,
            update_time=now,
        )
    )


def adopt(connection: Connection, model_digest: str, now: datetime) -> int:
    """Have every content of another model embedded by this one; returns how many those are.

    Uploads that are still coming in are of this model from now on too.
    """
    others = contents.c.model_digest != model_digest
    connection.execute(
        update(contents)
        .where(contents.c.state == SetState.UPLOADING, others)
        .values(model_digest=model_digest)
    )
    adopted = connection.execute(
        update(contents)
        .where(contents.c.state != SetState.UPLOADING, others)
        .values(
            state=SetState.EMBEDDING,
            embedded_count=0,
            failures=0,
            failure="",
            model_digest=model_digest,
            update_time=now,
        )
    )
    return adopted.rowcount


def from_row(row: Row[Any]) -> Content:
    """The content of a row that has all of the table's columns."""
    return Content(
        id=row.id,
        digest=row.digest or "",
        state=SetState(row.state),
        document_count=row.document_count,
        embedded_count=row.embedded_count,
        failures=row.failures,
        failure=row.failure,
        model_digest=row.model_digest,
        is_entered=row.enter_time is not None,
    )


def _first(row: Row[Any] | None) -> Content | None:
    return None if row is None else from_row(row)

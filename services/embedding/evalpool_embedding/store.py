"""What is stored of document sets. Plain functions on a connection, one transaction each.

Decisions lock the row of the content they are about: SQLite writes one after the other anyway,
PostgreSQL by `FOR UPDATE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from evalpool_embedding.documents import Document
from evalpool_embedding.schema import contents, document_sets, documents
from evalpool_embedding.sets import (
    MAX_FAILURES,
    Content,
    DocumentSet,
    SetState,
    entered,
    not_found,
    other_content,
)
from evalpool_runtime.errors import Aborted, reasons


def create_set(
    connection: Connection,
    owner: str,
    alias: str,
    digest: str,
    listed: Sequence[Document],
    model_digest: str,
    now: datetime,
) -> tuple[DocumentSet, bool]:
    """Name a content, and keep it to be embedded where it is new.

    Args:
        connection: The transaction.
        owner: Whose set it is.
        alias: The owner's name for it.
        digest: The digest of `listed`.
        listed: The documents.
        model_digest: The model that is to embed it.
        now: The present moment.

    Returns:
        The set, and whether it existed with the same content.

    Raises:
        AlreadyExists: The owner's set of this name has other content.
    """
    known = find_own(connection, owner, alias)
    if known is not None:
        return _same(connection, known, digest, now), True
    content_id = begin_upload(connection, model_digest, now)
    extend_upload(connection, content_id, listed, now)
    if not _keep_upload(connection, content_id, digest, now):
        discard_upload(connection, content_id)
        _lock_known(connection, digest, now)
    return _name(connection, owner, alias, digest, now)


def begin_upload(connection: Connection, model_digest: str, now: datetime) -> int:
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


def extend_upload(
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
    _add_documents(connection, content_id, count, listed)
    connection.execute(
        update(contents)
        .where(contents.c.id == content_id)
        .values(document_count=count + len(listed), update_time=now)
    )
    return int(count) + len(listed)


def finish_upload(
    connection: Connection, content_id: int, owner: str, alias: str, digest: str, now: datetime
) -> tuple[DocumentSet, bool]:
    """Name what an upload brought, and have it embedded where it is new.

    Returns:
        The set, and whether it existed with the same content.

    Raises:
        AlreadyExists: The owner's set of this name has other content.
        LookupError: The upload was swept, because nothing came for too long.
    """
    known = find_own(connection, owner, alias)
    if known is not None:
        same = _same(connection, known, digest, now)
        discard_upload(connection, content_id)
        return same, True
    if not _keep_upload(connection, content_id, digest, now):
        discard_upload(connection, content_id)
        _lock_known(connection, digest, now)
    return _name(connection, owner, alias, digest, now)


def discard_upload(connection: Connection, content_id: int) -> None:
    """Forget an upload that did not come to its end; again is no change."""
    _delete_uploads(connection, [content_id])


def discard_stale_uploads(connection: Connection, before: datetime) -> int:
    """Forget uploads to which nothing came since `before`; returns how many."""
    stale = list(
        connection.scalars(
            select(contents.c.id)
            .where(contents.c.state == SetState.UPLOADING, contents.c.update_time < before)
            .with_for_update()
        )
    )
    _delete_uploads(connection, stale)
    return len(stale)


def find_own(connection: Connection, owner: str, alias: str) -> DocumentSet | None:
    """The owner's set of this name."""
    return _first_set(
        connection,
        _sets().where(document_sets.c.owner == owner, document_sets.c.alias == alias),
    )


def find_set(
    connection: Connection, caller: str, name: str, *, of_anybody: bool = False
) -> DocumentSet:
    """The set that a caller means by a name of their own or by a digest.

    Args:
        connection: The transaction.
        caller: Who asks.
        name: The caller's name for a set, or a content's digest.
        of_anybody: Whether the caller may see everybody's sets, by digest. The owner is then
            whoever named the content first.

    Raises:
        NotFound: There is none, or it is somebody else's.
    """
    found = find_own(connection, caller, name)
    if found is None:
        by_digest = _sets().where(contents.c.digest == name)
        if not of_anybody:
            by_digest = by_digest.where(document_sets.c.owner == caller)
        found = _first_set(
            connection,
            by_digest.order_by(document_sets.c.create_time, document_sets.c.alias),
        )
    if found is None:
        raise not_found(name)
    return found


def list_sets(
    connection: Connection, owner: str, after: str | None, limit: int
) -> list[DocumentSet]:
    """An owner's sets by name, those after a name, at most `limit`."""
    query = _sets().where(document_sets.c.owner == owner)
    if after is not None:
        query = query.where(document_sets.c.alias > after)
    rows = connection.execute(query.order_by(document_sets.c.alias).limit(limit))
    return [_set(row) for row in rows]


def delete_set(connection: Connection, owner: str, alias: str) -> Content | None:
    """Delete a set, and its content where nobody else has it.

    Returns:
        The content that was deleted, None where it stays.

    Raises:
        NotFound: The owner has no such set.
        FailedPrecondition: The content is entered in a pool, and this is its last name.
    """
    found = find_own(connection, owner, alias)
    if found is None:
        raise not_found(alias)
    locked = _content_by_id(connection, found.content.id, lock=True)
    connection.execute(
        delete(document_sets).where(document_sets.c.owner == owner, document_sets.c.alias == alias)
    )
    others = connection.scalar(
        select(func.count())
        .select_from(document_sets)
        .where(document_sets.c.content_id == found.content.id)
    )
    if others or locked is None:
        return None
    if locked.is_entered:
        raise entered(alias)
    connection.execute(delete(contents).where(contents.c.id == locked.id))
    return locked


def mark_entered(connection: Connection, content_id: int, now: datetime) -> None:
    """Note that a content is used for a pool; the first time counts."""
    connection.execute(
        update(contents)
        .where(contents.c.id == content_id, contents.c.enter_time.is_(None))
        .values(enter_time=now)
    )


def next_to_embed(connection: Connection) -> Content | None:
    """The content whose turn it is: the one that was worked on least recently."""
    row = connection.execute(
        select(contents)
        .where(contents.c.state == SetState.EMBEDDING)
        .order_by(contents.c.update_time, contents.c.id)
        .limit(1)
    ).first()
    return None if row is None else _content(row)


def documents_from(
    connection: Connection, content_id: int, first: int, limit: int
) -> list[Document]:
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


def documents_at(
    connection: Connection, content_id: int, places: Iterable[int]
) -> dict[int, Document]:
    """Documents by their places in the list."""
    rows = connection.execute(
        select(documents.c.place, documents.c.content, documents.c.meta).where(
            documents.c.content_id == content_id, documents.c.place.in_(list(places))
        )
    )
    return {row.place: Document(row.content, row.meta) for row in rows}


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
    return _content_by_id(connection, content.id) if changed.rowcount else None


def note_failure(connection: Connection, content_id: int, failure: str, now: datetime) -> None:
    """Count a failure to embed; the fifth in a row ends it."""
    failures = connection.scalar(
        select(contents.c.failures)
        .where(contents.c.id == content_id, contents.c.state == SetState.EMBEDDING)
        .with_for_update()
    )
    if failures is None:
        return
    failures += 1
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


def all_contents(connection: Connection) -> list[Content]:
    """Every content that has a digest."""
    rows = connection.execute(select(contents).where(contents.c.digest.is_not(None)))
    return [_content(row) for row in rows]


def has_content(connection: Connection, content_id: int) -> bool:
    """Whether a content has not been deleted."""
    return _content_by_id(connection, content_id) is not None


def _same(connection: Connection, known: DocumentSet, digest: str, now: datetime) -> DocumentSet:
    content = known.content
    if content.digest != digest:
        raise other_content(known.alias, content.digest)
    if content.state is SetState.FAILED:
        embed_again(connection, content.id, content.model_digest, now)
    again = find_own(connection, known.owner, known.alias)
    return again or known


def _keep_upload(connection: Connection, content_id: int, digest: str, now: datetime) -> bool:
    """Give an upload its digest; False where a content of this digest is there.

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


def _lock_known(connection: Connection, digest: str, now: datetime) -> None:
    """Hold the content of a digest against deletion, and try again where it failed."""
    known = connection.execute(
        select(contents).where(contents.c.digest == digest).with_for_update()
    ).first()
    if known is None:
        raise Aborted(
            reasons.ERROR_REASON_UNAVAILABLE,
            "the same content was deleted at this moment; send the call again",
        )
    if known.state == SetState.FAILED:
        embed_again(connection, known.id, known.model_digest, now)


def _name(
    connection: Connection, owner: str, alias: str, digest: str, now: datetime
) -> tuple[DocumentSet, bool]:
    """Name the content of a digest; it exists."""
    content_id = connection.scalar(select(contents.c.id).where(contents.c.digest == digest))
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement: Any = dialect.insert(document_sets).values(
        owner=owner, alias=alias, content_id=content_id, create_time=now
    )
    made = connection.execute(
        statement.on_conflict_do_nothing(index_elements=["owner", "alias"]).returning(
            document_sets.c.alias
        )
    ).first()
    named = find_own(connection, owner, alias)
    if named is None:
        raise not_found(alias)
    if named.content.digest != digest:  # named by another call meanwhile
        raise other_content(alias, named.content.digest)
    return named, made is None


def _add_documents(
    connection: Connection, content_id: int, first: int, listed: Sequence[Document]
) -> None:
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


def _delete_uploads(connection: Connection, ids: Sequence[int]) -> None:
    connection.execute(
        delete(contents).where(contents.c.id.in_(ids), contents.c.state == SetState.UPLOADING)
    )


def _sets() -> Select[Any]:
    return select(
        contents,
        document_sets.c.owner,
        document_sets.c.alias,
        document_sets.c.create_time.label("named_time"),
    ).join_from(document_sets, contents)


def _first_set(connection: Connection, query: Select[Any]) -> DocumentSet | None:
    row = connection.execute(query.limit(1)).first()
    return None if row is None else _set(row)


def _content_by_id(
    connection: Connection, content_id: int, *, lock: bool = False
) -> Content | None:
    query = select(contents).where(contents.c.id == content_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _content(row)


def _set(row: Row[Any]) -> DocumentSet:
    return DocumentSet(row.alias, row.owner, _content(row), row.named_time)


def _content(row: Row[Any]) -> Content:
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

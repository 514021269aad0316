"""Document sets: owners' names for contents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from evalpool_embedding.documents import Document
from evalpool_embedding.schema import contents as contents_table
from evalpool_embedding.schema import document_sets
from evalpool_embedding.sets import (
    Content,
    DocumentSet,
    SetState,
    deleted_meanwhile,
    entered,
    not_found,
    other_content,
)
from evalpool_embedding.store import contents, uploads

# Whoever named a content first is its owner for others.
_OLDEST_FIRST = (document_sets.c.create_time, document_sets.c.owner, document_sets.c.alias)


def create(
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
    content_id = uploads.begin(connection, model_digest, now)
    uploads.extend(connection, content_id, listed, now)
    return _keep_and_name(connection, content_id, owner, alias, digest, now)


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
        uploads.discard(connection, content_id)
        return same, True
    return _keep_and_name(connection, content_id, owner, alias, digest, now)


def find_own(connection: Connection, owner: str, alias: str) -> DocumentSet | None:
    """The owner's set of this name."""
    return _first(
        connection,
        _query().where(document_sets.c.owner == owner, document_sets.c.alias == alias),
    )


def find(
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
        by_digest = _query().where(contents_table.c.digest == name)
        if not of_anybody:
            by_digest = by_digest.where(document_sets.c.owner == caller)
        found = _first(
            connection,
            by_digest.order_by(*_OLDEST_FIRST),
        )
    if found is None:
        raise not_found("dataset_hash", name)
    return found


def page(connection: Connection, owner: str, after: str | None, limit: int) -> list[DocumentSet]:
    """An owner's sets by name, those after a name, at most `limit`."""
    query = _query().where(document_sets.c.owner == owner)
    if after is not None:
        query = query.where(document_sets.c.alias > after)
    rows = connection.execute(query.order_by(document_sets.c.alias).limit(limit))
    return [_from_row(row) for row in rows]


def delete_own(connection: Connection, owner: str, alias: str) -> Content | None:
    """Delete a set, and its content where nobody else has it.

    Returns:
        The content that was deleted, None where it stays.

    Raises:
        NotFound: The owner has no such set.
        FailedPrecondition: The content is entered in a pool, under this name.
    """
    found = find_own(connection, owner, alias)
    if found is None:
        raise not_found("hash", alias)
    content = contents.lock(connection, found.content.id)
    if content is not None and content.is_entered and _is_oldest(connection, found):
        raise entered(alias)
    connection.execute(
        delete(document_sets).where(document_sets.c.owner == owner, document_sets.c.alias == alias)
    )
    others = connection.scalar(
        select(func.count())
        .select_from(document_sets)
        .where(document_sets.c.content_id == found.content.id)
    )
    if others or content is None:
        return None
    contents.delete_content(connection, content.id)
    return content


def enter(connection: Connection, caller: str, digest: str, now: datetime) -> DocumentSet:
    """Keep a content from deletion, because a run rests on it; gives the set, by its digest.

    Raises:
        NotFound: There is none.
    """
    contents.lock_by_digest(connection, digest)
    named = find(connection, caller, digest, of_anybody=True)
    contents.mark_entered(connection, named.content.id, now)
    return find(connection, caller, digest, of_anybody=True)


def _is_oldest(connection: Connection, named: DocumentSet) -> bool:
    """Whether a set is the one that others see for its content."""
    oldest = _first(
        connection,
        _query().where(contents_table.c.id == named.content.id).order_by(*_OLDEST_FIRST),
    )
    return oldest is not None and (oldest.owner, oldest.alias) == (named.owner, named.alias)


def _same(connection: Connection, known: DocumentSet, digest: str, now: datetime) -> DocumentSet:
    """The set that is named again, tried once more where it could not be embedded."""
    content = known.content
    if content.digest != digest:
        raise other_content(known.alias, content.digest)
    if content.state is SetState.FAILED:
        contents.embed_again(connection, content.id, content.model_digest, now)
    return find_own(connection, known.owner, known.alias) or known


def _keep_and_name(
    connection: Connection, content_id: int, owner: str, alias: str, digest: str, now: datetime
) -> tuple[DocumentSet, bool]:
    if not uploads.keep(connection, content_id, digest, now):
        uploads.discard(connection, content_id)
        known = contents.lock_by_digest(connection, digest)
        if known is None:
            raise deleted_meanwhile()
        if known.state is SetState.FAILED:
            contents.embed_again(connection, known.id, known.model_digest, now)
        content_id = known.id
    return _name(connection, content_id, owner, alias, digest, now)


def _name(
    connection: Connection, content_id: int, owner: str, alias: str, digest: str, now: datetime
) -> tuple[DocumentSet, bool]:
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
        raise deleted_meanwhile()
    if named.content.digest != digest:  # named by another call meanwhile
        raise other_content(alias, named.content.digest)
    return named, made is None


def _query() -> Select[Any]:
    return select(
        contents_table,
        document_sets.c.owner,
        document_sets.c.alias,
        document_sets.c.create_time.label("named_time"),
    ).join_from(document_sets, contents_table)


def _first(connection: Connection, query: Select[Any]) -> DocumentSet | None:
    row = connection.execute(query.limit(1)).first()
    return None if row is None else _from_row(row)


def _from_row(row: Row[Any]) -> DocumentSet:
    return DocumentSet(row.alias, row.owner, contents.from_row(row), row.named_time)

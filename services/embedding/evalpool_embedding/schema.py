"""The embedding service's tables.

A content is a list of documents with its vectors; it is kept once, however many owners have it.
A document set is an owner's name for a content.
"""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

from evalpool_runtime.columns import Json, UtcDateTime
from evalpool_runtime.replay import seen_tokens_table

metadata = MetaData()

contents = Table(
    "contents",
    metadata,
    Column("id", Integer, primary_key=True),
    # Null while the documents of an upload are still coming in.
    Column("digest", Text, unique=True),
    Column("state", Text, nullable=False),
    Column("document_count", Integer, nullable=False),
    Column("embedded_count", Integer, nullable=False),
    # Failures in a row, and what the last one was.
    Column("failures", Integer, nullable=False),
    Column("failure", Text, nullable=False),
    Column("model_digest", Text, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    # The last time that documents came in or were embedded.
    Column("update_time", UtcDateTime, nullable=False),
    # When the dataset service first looked it up for a run: it is then entered in a pool.
    Column("enter_time", UtcDateTime),
    CheckConstraint(
        "state IN ('uploading', 'embedding', 'ready', 'failed')", name="contents_state"
    ),
    CheckConstraint("embedded_count <= document_count", name="contents_embedded_count"),
    CheckConstraint("(digest IS NULL) = (state = 'uploading')", name="contents_digest"),
    # An id is never used again: collections are named after it.
    sqlite_autoincrement=True,
)
Index("contents_by_state", contents.c.state, contents.c.update_time)

documents = Table(
    "documents",
    metadata,
    Column("content_id", Integer, ForeignKey("contents.id", ondelete="CASCADE"), nullable=False),
    # The document's place in the list, from 0.
    Column("place", Integer, nullable=False),
    Column("content", Text, nullable=False),
    Column("meta", Json, nullable=False),
    PrimaryKeyConstraint("content_id", "place"),
)

document_sets = Table(
    "document_sets",
    metadata,
    Column("owner", Text, nullable=False),
    Column("alias", Text, nullable=False),
    Column("content_id", Integer, ForeignKey("contents.id"), nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("owner", "alias"),
)
Index("document_sets_by_content", document_sets.c.content_id, document_sets.c.create_time)

seen_tokens = seen_tokens_table(metadata)

"""The ledger's tables: append-only double entry."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

from evalpool_runtime.columns import Json, Quantity, UtcDateTime
from evalpool_runtime.replay import seen_tokens_table

metadata = MetaData()

# One row. Every commit locks it, which makes the sequence gapless for all readers.
head = Table(
    "head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
    Column("supply", Quantity, nullable=False),
    Column("commit_time", UtcDateTime),
    # The address of the key whose ledger this is; empty before the first start.
    Column("ledger", Text, nullable=False),
)

accounts = Table(
    "accounts",
    metadata,
    Column("address", Text, primary_key=True),
    Column("balance", Quantity, nullable=False),
    Column("held", Quantity, nullable=False),
)

entries = Table(
    "entries",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("quantity", Quantity, nullable=False),
    Column("tags", Json, nullable=False),
    Column("commit_time", UtcDateTime, nullable=False),
    Column("author", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("expire_time", UtcDateTime),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("ix_entries_id", "id"),
)

postings = Table(
    "postings",
    metadata,
    Column("account", Text, nullable=False),
    Column("sequence", BigInteger, ForeignKey("entries.sequence"), nullable=False),
    Column("amount", Quantity, nullable=False),
    Column("held_amount", Quantity, nullable=False),
    Column("balance", Quantity, nullable=False),
    Column("held", Quantity, nullable=False),
    PrimaryKeyConstraint("account", "sequence"),
    Index("ix_postings_sequence", "sequence"),
)

requests = Table(
    "requests",
    metadata,
    Column("sender", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("first_sequence", BigInteger, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("supply", Quantity, nullable=False),
    PrimaryKeyConstraint("sender", "request_id"),
)

holds = Table(
    "holds",
    metadata,
    Column("id", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("quantity", Quantity, nullable=False),
    Column("captured", Quantity, nullable=False),
    Column("state", Text, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("expire_time", UtcDateTime, nullable=False),
    Index("ix_holds_state_expire_time", "state", "expire_time"),
    Index("ix_holds_holder_state", "holder", "state"),
)

seen_tokens = seen_tokens_table(metadata)

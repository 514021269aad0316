"""The router's tables: workers, uploaded models, the last multiplier, charges, tokens seen."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
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

workers = Table(
    "workers",
    metadata,
    Column("address", Text, primary_key=True),
    # Names of kinds as the operator's last call said; NULL: no call, so that the settings decide.
    Column("kinds", Json, nullable=True),
    Column("draining", Boolean, nullable=False),
    # Of the newest registration; never goes back, so that old results are known as such.
    Column("generation", BigInteger, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("owner", Text, nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("license", Text, nullable=False),
    Column("context_length", BigInteger, nullable=False),
    Column("quantisation", Text, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Index("ix_models_name_digest", "name", "digest"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("owner", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("update_time", UtcDateTime, nullable=False, index=True),
    PrimaryKeyConstraint("owner", "digest"),
)

last_multiplier = Table(
    "last_multiplier",
    metadata,
    # One row: what the request dispatched last had offered, as a fraction such as "5/2".
    Column("id", Integer, primary_key=True),
    Column("multiplier", Text, nullable=False),
)

charges = Table(
    "charges",
    metadata,
    # A hold pays for one request.
    Column("hold", Text, primary_key=True),
    Column("held", Quantity, nullable=False),
    # NULL while the request is under way; written once, before anything is captured.
    Column("charged", Quantity, nullable=True),
    # When the ledger had done it; some time later it is forgotten.
    Column("settle_time", UtcDateTime, nullable=True, index=True),
    Column("create_time", UtcDateTime, nullable=False),
)

seen_tokens = seen_tokens_table(metadata)

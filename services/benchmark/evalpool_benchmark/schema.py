"""The benchmark service's tables.

What must survive a crash is here before anything follows from it: the decision on a transfer before
its refund, an entry before its run, the payout plan before its payment.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from evalpool_runtime.columns import Json, Quantity, UtcDateTime
from evalpool_runtime.replay import seen_tokens_table

metadata = MetaData()

pools = Table(
    "pools",
    metadata,
    Column("id", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False, unique=True),
    Column("title", Text, nullable=False),
    Column("funder", Text, nullable=False),
    Column("funds", Quantity, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("dataset_version", Text, nullable=False),
    Column("dataset_owner", Text, nullable=False),
    Column("question_count", Integer, nullable=False),
    Column("evaluator", Text, nullable=False),
    Column("allocation", Text, nullable=False),
    Column("tie_rule", Text, nullable=False),
    Column("start_time", UtcDateTime, nullable=False),
    Column("end_time", UtcDateTime, nullable=False),
    Column("grace_microseconds", BigInteger, nullable=False),
    Column("minimum_score", Text, nullable=False),
    Column("max_entries_per_day", Integer, nullable=False),
    Column("phase", Text, nullable=False),
    Column("freeze_time", UtcDateTime),
    Column("settle_time", UtcDateTime),
    Column("subject_kind", Text, nullable=False, server_default="model"),
    Index("ix_pools_phase_end_time", "phase", "end_time"),
    Index("ix_pools_dataset_sequence", "dataset", "sequence"),
)

contributions = Table(
    "contributions",
    metadata,
    Column("transfer", Text, primary_key=True),
    Column("pool", Text, ForeignKey("pools.id"), nullable=False),
    Column("payer", Text, nullable=False),
    Column("quantity", Quantity, nullable=False),
    Column("time", UtcDateTime, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Index("ix_contributions_pool_sequence", "pool", "sequence"),
)

fundings = Table(
    "fundings",
    metadata,
    Column("transfer", Text, primary_key=True),
    Column("payer", Text, nullable=False),
    Column("quantity", Quantity, nullable=False),
    Column("time", UtcDateTime, nullable=False),
    Column("sequence", BigInteger, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("pool", Text, ForeignKey("pools.id")),
    Column("reason", Text, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("refund_transfer", Text),
    Index("ix_fundings_state_refund_transfer", "state", "refund_transfer"),
)

entries = Table(
    "entries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("pool", Text, ForeignKey("pools.id"), nullable=False),
    Column("subject", Text, nullable=False),
    Column("subject_name", Text, nullable=False),
    Column("participant", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("join_time", UtcDateTime, nullable=False),
    Column("join_order", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("prize_free", Boolean, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("run", Text, nullable=False),
    Column("score_cursor", BigInteger, nullable=False),
    Column("correct", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("queue_position", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("machinery_failed", Boolean, nullable=False),
    Column("end_time", UtcDateTime),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("retry_time", UtcDateTime),
    Column("points", BigInteger, nullable=False, server_default="0"),
    Column("full_marks", Integer, nullable=False, server_default="0"),
    UniqueConstraint("pool", "subject", name="uq_entries_pool_subject"),
    UniqueConstraint("pool", "join_order", name="uq_entries_pool_join_order"),
    Index("ix_entries_state", "state"),
    Index("ix_entries_run", "run"),
    Index("ix_entries_retry_time", "retry_time"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("entry", Text, ForeignKey("entries.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("pool", Text, nullable=False),
    Column("participant", Text, nullable=False),
    Column("join_time", UtcDateTime, nullable=False),
    Column("returned", Boolean, nullable=False),
    PrimaryKeyConstraint("entry", "attempt"),
    Index("ix_attempts_pool_participant_join_time", "pool", "participant", "join_time"),
)
"""What counts against a participant's entries a day; returned where the attempt failed."""

join_requests = Table(
    "join_requests",
    metadata,
    Column("participant", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("entry", Text, ForeignKey("entries.id"), nullable=False),
    PrimaryKeyConstraint("participant", "request_id"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("pool", Text, ForeignKey("pools.id"), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("time", UtcDateTime, nullable=False),
    Column("final", Boolean, nullable=False),
    Column("funds", Quantity, nullable=False),
    Column("rows", Json, nullable=False),
    PrimaryKeyConstraint("pool", "revision"),
)

payouts = Table(
    "payouts",
    metadata,
    Column("pool", Text, ForeignKey("pools.id"), nullable=False),
    Column("line", Integer, nullable=False),
    Column("entry", Text, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("quantity", Quantity, nullable=False),
    Column("contribution", Text, nullable=False),
    Column("transfer", Text, nullable=False),
    Column("batch", Integer),
    PrimaryKeyConstraint("pool", "line"),
)

cursors = Table(
    "cursors",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""How far the streams of other services have been read: "notices" and "scores"."""

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires", UtcDateTime, nullable=False),
)
"""Which replica does which work; a lapsed lease may be taken by any."""

sweeps = Table(
    "sweeps",
    metadata,
    Column("name", Text, primary_key=True),
    Column("time", UtcDateTime, nullable=False),
)
"""When each sweep was last done, by any replica."""

seen_tokens = seen_tokens_table(metadata)

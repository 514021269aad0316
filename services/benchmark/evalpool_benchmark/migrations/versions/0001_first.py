"""The first tables: pools, their funding, entries, snapshots, payouts, cursors and leases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from evalpool_runtime.columns import Json, Quantity, UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "pools",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("funder", sa.Text, nullable=False),
        sa.Column("funds", Quantity, nullable=False),
        sa.Column("dataset", sa.Text, nullable=False),
        sa.Column("dataset_version", sa.Text, nullable=False),
        sa.Column("dataset_owner", sa.Text, nullable=False),
        sa.Column("question_count", sa.Integer, nullable=False),
        sa.Column("evaluator", sa.Text, nullable=False),
        sa.Column("allocation", sa.Text, nullable=False),
        sa.Column("tie_rule", sa.Text, nullable=False),
        sa.Column("start_time", UtcDateTime, nullable=False),
        sa.Column("end_time", UtcDateTime, nullable=False),
        sa.Column("grace_microseconds", sa.BigInteger, nullable=False),
        sa.Column("minimum_score", sa.Text, nullable=False),
        sa.Column("max_entries_per_day", sa.Integer, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("freeze_time", UtcDateTime),
        sa.Column("settle_time", UtcDateTime),
    )
    op.create_table(
        "contributions",
        sa.Column("transfer", sa.Text, primary_key=True),
        sa.Column("pool", sa.Text, sa.ForeignKey("pools.id"), nullable=False),
        sa.Column("payer", sa.Text, nullable=False),
        sa.Column("quantity", Quantity, nullable=False),
        sa.Column("time", UtcDateTime, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "fundings",
        sa.Column("transfer", sa.Text, primary_key=True),
        sa.Column("payer", sa.Text, nullable=False),
        sa.Column("quantity", Quantity, nullable=False),
        sa.Column("time", UtcDateTime, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("pool", sa.Text, sa.ForeignKey("pools.id")),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("reason_code", sa.Text, nullable=False),
        sa.Column("refund_transfer", sa.Text),
    )
    op.create_table(
        "entries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("pool", sa.Text, sa.ForeignKey("pools.id"), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("subject_name", sa.Text, nullable=False),
        sa.Column("participant", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("join_time", UtcDateTime, nullable=False),
        sa.Column("join_order", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("prize_free", sa.Boolean, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("score_cursor", sa.BigInteger, nullable=False),
        sa.Column("correct", sa.Integer, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("queue_position", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("reason_code", sa.Text, nullable=False),
        sa.Column("machinery_failed", sa.Boolean, nullable=False),
        sa.Column("end_time", UtcDateTime),
        sa.UniqueConstraint("pool", "subject", name="uq_entries_pool_subject"),
        sa.UniqueConstraint("pool", "join_order", name="uq_entries_pool_join_order"),
    )
    op.create_table(
        "attempts",
        sa.Column("entry", sa.Text, sa.ForeignKey("entries.id"), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("participant", sa.Text, nullable=False),
        sa.Column("join_time", UtcDateTime, nullable=False),
        sa.Column("returned", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("entry", "attempt"),
    )
    op.create_table(
        "join_requests",
        sa.Column("participant", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("entry", sa.Text, sa.ForeignKey("entries.id"), nullable=False),
        sa.PrimaryKeyConstraint("participant", "request_id"),
    )
    op.create_table(
        "snapshots",
        sa.Column("pool", sa.Text, sa.ForeignKey("pools.id"), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("time", UtcDateTime, nullable=False),
        sa.Column("final", sa.Boolean, nullable=False),
        sa.Column("funds", Quantity, nullable=False),
        sa.Column("rows", Json, nullable=False),
        sa.PrimaryKeyConstraint("pool", "revision"),
    )
    op.create_table(
        "payouts",
        sa.Column("pool", sa.Text, sa.ForeignKey("pools.id"), nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("entry", sa.Text, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("quantity", Quantity, nullable=False),
        sa.Column("contribution", sa.Text, nullable=False),
        sa.Column("transfer", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("pool", "line"),
    )
    op.create_table(
        "cursors",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("expires", UtcDateTime, nullable=False),
    )
    op.create_table(
        "seen_tokens",
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("jti", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("response", sa.LargeBinary, nullable=False),
        sa.Column("expires", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("address", "jti"),
    )
    op.create_index("ix_pools_phase_end_time", "pools", ["phase", "end_time"])
    op.create_index("ix_pools_dataset_sequence", "pools", ["dataset", "sequence"])
    op.create_index("ix_contributions_pool_sequence", "contributions", ["pool", "sequence"])
    op.create_index("ix_fundings_state_refund_transfer", "fundings", ["state", "refund_transfer"])
    op.create_index("ix_entries_state", "entries", ["state"])
    op.create_index("ix_entries_run", "entries", ["run"])
    op.create_index(
        "ix_attempts_pool_participant_join_time", "attempts", ["pool", "participant", "join_time"]
    )
    op.create_index("ix_seen_tokens_expires", "seen_tokens", ["expires"])


def downgrade() -> None:
    for table in (
        "seen_tokens",
        "leases",
        "cursors",
        "payouts",
        "snapshots",
        "join_requests",
        "attempts",
        "entries",
        "fundings",
        "contributions",
        "pools",
    ):
        op.drop_table(table)

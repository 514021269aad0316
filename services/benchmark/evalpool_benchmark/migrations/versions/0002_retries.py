"""Entries say when they are tried again, and how often they have failed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from evalpool_runtime.columns import UtcDateTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("entries", sa.Column("failures", sa.Integer, nullable=False, server_default="0"))
    op.add_column("entries", sa.Column("retry_time", UtcDateTime))
    entries = sa.table(
        "entries",
        sa.column("machinery_failed", sa.Boolean),
        sa.column("failures", sa.Integer),
        sa.column("join_time", UtcDateTime),
        sa.column("retry_time", UtcDateTime),
        sa.column("end_time", UtcDateTime),
    )
    # What the machinery had failed is tried again at once: any time that has passed says so.
    op.execute(
        entries.update()
        .where(entries.c.machinery_failed)
        .values(failures=1, retry_time=entries.c.join_time, end_time=None)
    )
    op.create_index("ix_entries_retry_time", "entries", ["retry_time"])


def downgrade() -> None:
    op.drop_index("ix_entries_retry_time", "entries")
    op.drop_column("entries", "retry_time")
    op.drop_column("entries", "failures")

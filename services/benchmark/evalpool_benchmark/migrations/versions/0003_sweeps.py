"""When each sweep was last done."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from evalpool_runtime.columns import UtcDateTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("time", UtcDateTime, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("sweeps")

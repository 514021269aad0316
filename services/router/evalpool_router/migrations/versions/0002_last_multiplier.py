"""The multiplier of the request that was dispatched last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "last_multiplier",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("multiplier", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("last_multiplier")

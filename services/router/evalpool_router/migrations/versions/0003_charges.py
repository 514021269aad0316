"""Which holds pay for inference, and what they are charged."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from evalpool_runtime.columns import Quantity, UtcDateTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "charges",
        sa.Column("hold", sa.Text, primary_key=True),
        sa.Column("held", Quantity, nullable=False),
        sa.Column("charged", Quantity, nullable=True),
        sa.Column("settled", sa.Boolean, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
    )
    op.create_index("ix_charges_settled", "charges", ["settled"])


def downgrade() -> None:
    op.drop_table("charges")

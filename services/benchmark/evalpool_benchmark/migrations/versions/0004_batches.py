"""A payout plan says in which batch each line is sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_BATCH_LINES = 10_000
"""What every plan was cut into before; what was sent of it keeps its request ids."""


def upgrade() -> None:
    op.add_column("payouts", sa.Column("batch", sa.Integer))
    payouts = sa.table("payouts", sa.column("line", sa.Integer), sa.column("batch", sa.Integer))
    op.execute(payouts.update().values(batch=payouts.c.line // _BATCH_LINES))


def downgrade() -> None:
    op.drop_column("payouts", "batch")

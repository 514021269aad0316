"""Charges say when the ledger did them, so that old ones can be forgotten."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from evalpool_runtime.columns import UtcDateTime

revision = "0004"
down_revision = "0003"

charges = sa.table(
    "charges",
    sa.column("settled", sa.Boolean),
    sa.column("settle_time", UtcDateTime),
    sa.column("create_time", UtcDateTime),
)


def upgrade() -> None:
    op.add_column("charges", sa.Column("settle_time", UtcDateTime))
    op.execute(charges.update().where(charges.c.settled).values(settle_time=charges.c.create_time))
    op.drop_index("ix_charges_settled", "charges")
    op.drop_column("charges", "settled")
    op.create_index("ix_charges_settle_time", "charges", ["settle_time"])


def downgrade() -> None:
    op.add_column(
        "charges", sa.Column("settled", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.execute(charges.update().where(charges.c.settle_time.is_not(None)).values(settled=True))
    op.drop_index("ix_charges_settle_time", "charges")
    op.drop_column("charges", "settle_time")
    op.create_index("ix_charges_settled", "charges", ["settled"])

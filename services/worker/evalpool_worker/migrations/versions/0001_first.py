"""The first tables."""

import sqlalchemy as sa
from alembic import op

from evalpool_runtime.columns import Json, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "settings",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", Json, nullable=False),
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
    op.create_index("ix_seen_tokens_expires", "seen_tokens", ["expires"])

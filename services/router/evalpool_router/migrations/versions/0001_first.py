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
        "workers",
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("kinds", Json, nullable=True),
        sa.Column("draining", sa.Boolean, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "models",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("license", sa.Text, nullable=False),
        sa.Column("context_length", sa.BigInteger, nullable=False),
        sa.Column("quantisation", sa.Text, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
    )
    op.create_index("ix_models_owner", "models", ["owner"])
    op.create_index("ix_models_name_digest", "models", ["name", "digest"])
    op.create_table(
        "uploads",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("update_time", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("owner", "digest"),
    )
    op.create_index("ix_uploads_update_time", "uploads", ["update_time"])
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

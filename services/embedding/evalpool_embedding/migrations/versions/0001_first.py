"""Contents, documents, document sets, tokens seen.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

from evalpool_runtime.columns import Json, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "contents",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("digest", sa.Text, unique=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("document_count", sa.Integer, nullable=False),
        sa.Column("embedded_count", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failure", sa.Text, nullable=False),
        sa.Column("model_digest", sa.Text, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("update_time", UtcDateTime, nullable=False),
        sa.Column("enter_time", UtcDateTime),
        sa.CheckConstraint(
            "state IN ('uploading', 'embedding', 'ready', 'failed')", name="contents_state"
        ),
        sa.CheckConstraint("embedded_count <= document_count", name="contents_embedded_count"),
        sa.CheckConstraint("(digest IS NULL) = (state = 'uploading')", name="contents_digest"),
        sqlite_autoincrement=True,
    )
    op.create_index("contents_by_state", "contents", ["state", "update_time"])
    op.create_table(
        "documents",
        sa.Column(
            "content_id",
            sa.Integer,
            sa.ForeignKey("contents.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("meta", Json, nullable=False),
        sa.PrimaryKeyConstraint("content_id", "place"),
    )
    op.create_table(
        "document_sets",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("alias", sa.Text, nullable=False),
        sa.Column("content_id", sa.Integer, sa.ForeignKey("contents.id"), nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("owner", "alias"),
    )
    op.create_index("document_sets_by_content", "document_sets", ["content_id", "create_time"])
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

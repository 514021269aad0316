"""The first tables."""

import sqlalchemy as sa
from alembic import op

from evalpool_runtime.columns import Json, Quantity, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    head = op.create_table(
        "head",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("supply", Quantity, nullable=False),
        sa.Column("commit_time", UtcDateTime),
        sa.Column("ledger", sa.Text, nullable=False),
    )
    op.create_table(
        "accounts",
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("balance", Quantity, nullable=False),
        sa.Column("held", Quantity, nullable=False),
    )
    op.create_table(
        "entries",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("quantity", Quantity, nullable=False),
        sa.Column("tags", Json, nullable=False),
        sa.Column("commit_time", UtcDateTime, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("expire_time", UtcDateTime),
        sa.Column("previous_hash", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
    )
    op.create_index("ix_entries_id", "entries", ["id"])
    op.create_table(
        "postings",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, sa.ForeignKey("entries.sequence"), nullable=False),
        sa.Column("amount", Quantity, nullable=False),
        sa.Column("held_amount", Quantity, nullable=False),
        sa.Column("balance", Quantity, nullable=False),
        sa.Column("held", Quantity, nullable=False),
        sa.PrimaryKeyConstraint("account", "sequence"),
    )
    op.create_index("ix_postings_sequence", "postings", ["sequence"])
    op.create_table(
        "requests",
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("first_sequence", sa.BigInteger, nullable=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("supply", Quantity, nullable=False),
        sa.PrimaryKeyConstraint("sender", "request_id"),
    )
    op.create_table(
        "holds",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("quantity", Quantity, nullable=False),
        sa.Column("captured", Quantity, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("expire_time", UtcDateTime, nullable=False),
    )
    op.create_index("ix_holds_state_expire_time", "holds", ["state", "expire_time"])
    op.create_index("ix_holds_holder_state", "holds", ["holder", "state"])
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
    op.bulk_insert(head, [{"id": 1, "sequence": 0, "hash": "0" * 64, "supply": 0, "ledger": ""}])

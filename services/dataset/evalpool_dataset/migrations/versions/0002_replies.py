"""Replies that are written freely: expected texts, filters, grades, and points a question."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from evalpool_runtime.columns import Json

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("definitions", sa.Column("parameters", Json, nullable=False, server_default="{}"))
    op.add_column("datasets", sa.Column("expected", Json, nullable=False, server_default="[]"))
    op.add_column("runs", sa.Column("points", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("full_marks", sa.Integer, nullable=False, server_default="1"))
    op.add_column("evaluations", sa.Column("points", sa.Integer))
    op.add_column("evaluations", sa.Column("extracted", Json))
    op.add_column("evaluations", sa.Column("judging", Json))
    # Until now each right answer was a point.
    op.execute("UPDATE runs SET points = correct")
    op.execute(
        "UPDATE evaluations SET points = CASE WHEN prediction = correct_answer THEN 1 ELSE 0 END "
        "WHERE state = 'done'"
    )


def downgrade() -> None:
    for column in ("judging", "extracted", "points"):
        op.drop_column("evaluations", column)
    op.drop_column("runs", "full_marks")
    op.drop_column("runs", "points")
    op.drop_column("datasets", "expected")
    op.drop_column("definitions", "parameters")

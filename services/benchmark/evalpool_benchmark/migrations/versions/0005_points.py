"""Entries have points, of full marks; pools say what is entered in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

from evalpool_runtime.columns import Json

revision = "0005"
down_revision = "0004"

_SNAPSHOTS = sa.table(
    "snapshots",
    sa.column("pool", sa.Text),
    sa.column("revision", sa.BigInteger),
    sa.column("rows", Json),
)


def upgrade() -> None:
    op.add_column(
        "pools", sa.Column("subject_kind", sa.Text, nullable=False, server_default="model")
    )
    op.add_column("entries", sa.Column("points", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column(
        "entries", sa.Column("full_marks", sa.Integer, nullable=False, server_default="0")
    )
    entries = sa.table(
        "entries",
        sa.column("correct", sa.Integer),
        sa.column("points", sa.BigInteger),
        sa.column("full_marks", sa.Integer),
    )
    # Until now each right answer was a point, and nothing gave more.
    op.execute(entries.update().values(points=entries.c.correct, full_marks=1))
    _change_rows(lambda row: {**row, "points": row["correct"], "full_marks": 1})


def downgrade() -> None:
    _change_rows(
        lambda row: {
            name: value for name, value in row.items() if name not in ("points", "full_marks")
        }
    )
    op.drop_column("entries", "full_marks")
    op.drop_column("entries", "points")
    op.drop_column("pools", "subject_kind")


def _change_rows(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change every row of every leaderboard that was kept, one leaderboard at a time."""
    connection = op.get_bind()
    keys = connection.execute(sa.select(_SNAPSHOTS.c.pool, _SNAPSHOTS.c.revision)).all()
    for pool, number in keys:
        this = sa.and_(_SNAPSHOTS.c.pool == pool, _SNAPSHOTS.c.revision == number)
        rows = connection.execute(sa.select(_SNAPSHOTS.c.rows).where(this)).scalar_one()
        connection.execute(
            _SNAPSHOTS.update().where(this).values(rows=[change(row) for row in rows])
        )

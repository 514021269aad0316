"""Snapshots of leaderboards, and payout plans with their receipts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update
from sqlalchemy import Row as SqlRow

from evalpool_benchmark.entry import EntryState
from evalpool_benchmark.leaderboard import Leaderboard, Row
from evalpool_benchmark.payout import PayoutLine, cut
from evalpool_benchmark.schema import payouts, snapshots


def add_snapshot(connection: Connection, board: Leaderboard) -> None:
    """Keep a snapshot, which never changes afterwards."""
    connection.execute(
        insert(snapshots).values(
            pool=board.pool,
            revision=board.revision,
            time=board.time,
            final=board.final,
            funds=board.funds,
            rows=[_row_to_json(row) for row in board.rows],
        )
    )


def newest_snapshot(connection: Connection, pool: str) -> Leaderboard | None:
    """A pool's newest snapshot, or None."""
    query = (
        select(snapshots)
        .where(snapshots.c.pool == pool)
        .order_by(snapshots.c.revision.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else _board(row)


def snapshots_after(
    connection: Connection, pool: str, revision: int, limit: int
) -> list[Leaderboard]:
    """A pool's snapshots after a revision, in order."""
    query = (
        select(snapshots)
        .where(snapshots.c.pool == pool, snapshots.c.revision > revision)
        .order_by(snapshots.c.revision)
        .limit(limit)
    )
    return [_board(row) for row in connection.execute(query)]


def newest_revision(connection: Connection, pool: str) -> int:
    """The revision of a pool's newest snapshot; 0 where there is none."""
    query = select(func.max(snapshots.c.revision)).where(snapshots.c.pool == pool)
    return connection.scalar(query) or 0


def add_plan(connection: Connection, pool: str, lines: Sequence[PayoutLine]) -> None:
    """Keep a payout plan, before anything of it is sent."""
    connection.execute(insert(payouts), [{**asdict(line), "pool": pool} for line in lines])


def plan_of(connection: Connection, pool: str) -> list[PayoutLine]:
    """A pool's payout plan, in order; empty where none is committed."""
    query = select(payouts).where(payouts.c.pool == pool).order_by(payouts.c.line)
    return [line_of(row) for row in connection.execute(query)]


def line_of(row: SqlRow[Any]) -> PayoutLine:
    """The plan's line of a row."""
    return PayoutLine(
        line=row.line,
        entry=row.entry,
        rank=row.rank,
        recipient=row.recipient,
        quantity=row.quantity,
        contribution=row.contribution,
        transfer=row.transfer,
        batch=row.batch,
    )


def cut_plan(connection: Connection, pool: str, size: int) -> list[PayoutLine]:
    """Cut the plan of a locked pool into batches, unless it has been cut, and keep that.

    Args:
        connection: The transaction.
        pool: The pool's id.
        size: Lines in a batch at most.

    Returns:
        The plan, in order.
    """
    lines = plan_of(connection, pool)
    cut_lines = list(cut(lines, size))
    if cut_lines != lines:
        connection.execute(
            update(payouts)
            .where(payouts.c.pool == pool, payouts.c.line == bindparam("of_line"))
            .values(batch=bindparam("in_batch")),
            [{"of_line": line.line, "in_batch": line.batch} for line in cut_lines],
        )
    return cut_lines


def add_receipts(connection: Connection, pool: str, receipts: Mapping[int, str]) -> None:
    """Keep the transfers that paid some lines, by line."""
    for line, transfer in receipts.items():
        connection.execute(
            update(payouts)
            .where(payouts.c.pool == pool, payouts.c.line == line)
            .values(transfer=transfer)
        )


def _row_to_json(row: Row) -> dict[str, Any]:
    return {
        **asdict(row),
        "state": row.state.value,
        "tied_with": list(row.tied_with),
        "reward": str(row.reward),
        "join_time": row.join_time.isoformat(),
    }


def _row_from_json(values: dict[str, Any]) -> Row:
    return Row(
        **{
            **values,
            "state": EntryState(values["state"]),
            "tied_with": tuple(values["tied_with"]),
            "reward": int(values["reward"]),
            "join_time": datetime.fromisoformat(values["join_time"]),
        }
    )


def _board(row: SqlRow[Any]) -> Leaderboard:
    return Leaderboard(
        pool=row.pool,
        rows=tuple(_row_from_json(values) for values in row.rows),
        time=row.time,
        revision=row.revision,
        final=row.final,
        funds=row.funds,
    )

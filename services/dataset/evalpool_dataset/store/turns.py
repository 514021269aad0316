"""Turns: whose questions are taken up next, and how many come before a run's first."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, exists, select

from evalpool_dataset import schema
from evalpool_dataset.run import OPEN, Run, RunState
from evalpool_dataset.store import evaluations, runs


def in_turn(connection: Connection) -> list[Run]:
    """Open runs: those with the fewest questions under way first, then the oldest."""
    under_way = evaluations.leased_counts(connection)
    return sorted(
        runs.open_runs(connection), key=lambda run: (under_way.get(run.id, 0), run.number)
    )


def questions_before(connection: Connection, run: Run, now: datetime, at_a_time: int) -> int:
    """About how many questions of others are answered before a queued run's first; else 0.

    Those that are under way, and of each run whose turn is before this one's as many as are taken
    up at a time.

    Args:
        connection: The transaction.
        run: The run.
        now: What time it is.
        at_a_time: Questions of one run that are taken up together, at most.
    """
    if run.state is not RunState.QUEUED:
        return 0
    under_way = evaluations.leased_counts(connection)
    before = sum(under_way.values()) - under_way.get(run.id, 0)
    if run.id in under_way:
        # They are at the herd with the others'.
        return before
    ready = exists().where(
        schema.evaluations.c.run == schema.runs.c.id, evaluations.can_be_claimed(now)
    )
    columns = schema.runs.c
    rows = connection.execute(
        select(columns.id, columns.total, columns.done, columns.failed).where(
            columns.state.in_(OPEN), columns.number < run.number, ready
        )
    )
    for row in rows:
        if row.id not in under_way:
            before += min(at_a_time, row.total - row.done - row.failed)
    return before

"""Runs and the cursor over their changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, false, func, insert, literal, select, update

from evalpool_dataset import schema
from evalpool_dataset.digest import JsonValue
from evalpool_dataset.problem import TELLING
from evalpool_dataset.run import OPEN, Run, RunState, verdict
from evalpool_dataset.store import askings
from evalpool_dataset.store.definitions import Version
from evalpool_runtime.errors import NotFound, reasons


def find_run(connection: Connection, run: str, *, lock: bool = False) -> Run | None:
    """The run with an id."""
    query = select(schema.runs).where(schema.runs.c.id == run)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return _run(row) if row is not None else None


def require_run(connection: Connection, run: str, field: str = "run", *, lock: bool = False) -> Run:
    """The run with an id.

    Args:
        connection: The transaction.
        run: The id.
        field: The request's field that names it.
        lock: Keep others from changing it until the transaction ends.

    Raises:
        NotFound: There is none.
    """
    found = find_run(connection, run, lock=lock)
    if found is None:
        raise NotFound(
            reasons.ERROR_REASON_RUN_NOT_FOUND,
            f'{field}: there is none with the id "{run}"; Benchmark starts one',
        )
    return found


def add_run(
    connection: Connection,
    run: str,
    version: Version,
    model: int,
    evaluator: str,
    parameters: Mapping[str, JsonValue],
    full_marks: int,
    now: datetime,
) -> Run:
    """Store a new run, asked for on a version, with its evaluations, all pending."""
    cursor = next_cursor(connection)
    number = (connection.scalar(select(func.max(schema.runs.c.number))) or 0) + 1
    made = Run(
        id=run,
        number=number,
        version=version.id,
        model=model,
        evaluator=evaluator,
        parameters=parameters,
        state=RunState.QUEUED,
        total=version.question_count,
        cursor=cursor,
        create_time=now,
        full_marks=full_marks,
    )
    connection.execute(insert(schema.runs).values(id=run, **_values(made)))
    askings.add(connection, run, version.id)
    questions = select(
        # In SQL: a version may have a hundred thousand questions.
        *(literal(value) for value in (run, model, "pending", "", "", "", 0, 0, 0)),
        schema.datasets.c.id,
        schema.datasets.c.ordinal,
        schema.datasets.c.result,
        false(),
    ).where(schema.datasets.c.version == version.id)
    connection.execute(
        insert(schema.evaluations).from_select(
            [
                "run", "model_id", "state", "prompt", "reason", "reason_code", "fence", "attempts",
                "failures",
                "dataset_id", "ordinal", "correct_answer", "started",
            ],
            questions,
        )
    )  # fmt: skip
    return made


def save_run(connection: Connection, run: Run) -> Run:
    """Store a run's changes under a new cursor."""
    saved = replace(run, cursor=next_cursor(connection))
    connection.execute(
        update(schema.runs).where(schema.runs.c.id == run.id).values(**_values(saved))
    )
    return saved


def settle(connection: Connection, run: Run, now: datetime) -> Run:
    """End a run whose questions are all done or have failed; otherwise give it back as it is."""
    first_failure, cause = "", ""
    if run.failed and run.done + run.failed == run.total:
        failed = (schema.evaluations.c.run == run.id) & (schema.evaluations.c.state == "failed")
        first_failure = (
            connection.scalar(
                select(schema.evaluations.c.reason)
                .where(failed)
                .order_by(schema.evaluations.c.ordinal)
                .limit(1)
            )
            or ""
        )
        causes = set(
            connection.scalars(select(schema.evaluations.c.reason_code).where(failed).distinct())
        )
        cause = next((code for code in TELLING if code in causes), "")
    end = verdict(run, first_failure, cause)
    if end is None:
        return run
    return replace(
        run, state=end.state, reason=end.reason, reason_code=end.reason_code, end_time=now
    )


def runs_after(
    connection: Connection,
    cursor: int,
    only: Sequence[str],
    limit: int,
    *,
    owner: str | None = None,
) -> list[Run]:
    """Runs that changed after a cursor, in the order of their changes.

    Args:
        connection: The transaction.
        cursor: The cursor.
        only: Only these; none for all.
        limit: How many at most.
        owner: Only those that were asked for on this owner's datasets; None for all.
    """
    query = select(schema.runs).where(schema.runs.c.cursor > cursor)
    if only:
        query = query.where(schema.runs.c.id.in_(only))
    if owner is not None:
        query = query.where(schema.runs.c.id.in_(askings.runs_of(owner)))
    rows = connection.execute(query.order_by(schema.runs.c.cursor).limit(limit))
    return [_run(row) for row in rows]


def open_runs(connection: Connection) -> list[Run]:
    """Runs whose questions are to be taken up, oldest first."""
    rows = connection.execute(
        select(schema.runs).where(schema.runs.c.state.in_(OPEN)).order_by(schema.runs.c.number)
    )
    return [_run(row) for row in rows]


def wait_for_turn(connection: Connection) -> None:
    """Take the lock that `next_cursor` takes: for makers of things that may be there already."""
    connection.execute(select(schema.score_cursor.c.cursor).with_for_update()).one()


def present_cursor(connection: Connection) -> int:
    """The cursor of the newest change of any run."""
    return int(connection.scalar(select(schema.score_cursor.c.cursor)) or 0)


def next_cursor(connection: Connection) -> int:
    """The next cursor; the lock on it is kept until the commit, so that readers skip none."""
    return int(
        connection.execute(
            update(schema.score_cursor)
            .values(cursor=schema.score_cursor.c.cursor + 1)
            .returning(schema.score_cursor.c.cursor)
        ).scalar_one()
    )


def _values(run: Run) -> dict[str, Any]:
    return {
        "number": run.number,
        "version": run.version,
        "model_id": run.model,
        "evaluator": run.evaluator,
        "parameters": run.parameters,
        "state": run.state.value,
        "reason": run.reason,
        "reason_code": run.reason_code,
        "correct": run.correct,
        "points": run.points,
        "full_marks": run.full_marks,
        "done": run.done,
        "failed": run.failed,
        "total": run.total,
        "metric_counts": run.metric_counts,
        "provenance": run.provenance,
        "cursor": run.cursor,
        "create_time": run.create_time,
        "start_time": run.start_time,
        "end_time": run.end_time,
    }


def _run(row: Row[Any]) -> Run:
    return Run(
        id=row.id,
        number=row.number,
        version=row.version,
        model=row.model_id,
        evaluator=row.evaluator,
        parameters=row.parameters,
        state=RunState(row.state),
        reason=row.reason,
        reason_code=row.reason_code,
        correct=row.correct,
        points=row.points,
        full_marks=row.full_marks,
        done=row.done,
        failed=row.failed,
        total=row.total,
        metric_counts=row.metric_counts,
        provenance=row.provenance,
        cursor=row.cursor,
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
    )

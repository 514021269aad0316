"""Evaluations: claims under fences, results that count once.

The rules are those of `evalpool_dataset.evaluation`; here rows are locked, turned into its values,
and written back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, func, select, update

from evalpool_dataset import schema
from evalpool_dataset.evaluation import Evaluation, State, claim
from evalpool_dataset.outcome import Answer, Claim
from evalpool_dataset.question import Question
from evalpool_dataset.run import OPEN, Run
from evalpool_dataset.store import askings, definitions

_table = schema.evaluations
_KEYS_A_QUERY = 1000


@dataclass(frozen=True, slots=True)
class Result:
    """An evaluation as its dataset's owner sees it.

    Attributes:
        question: What was asked.
        evaluation: Its status.
        full_marks: The points that it can give.
        answer: What the inference gave; None before.
    """

    question: Question
    evaluation: Evaluation
    full_marks: int
    answer: Answer | None


# Made once: a run writes every one of its evaluations three times.
_UPDATE = update(_table).where(_table.c.id == bindparam("number"))


def claim_some(
    connection: Connection,
    run: str,
    *,
    holder: str,
    now: datetime,
    lease: timedelta,
    limit: int,
) -> list[Claim]:
    """Lease pending questions of a run; replicas pass over each other's."""
    rows = connection.execute(
        select(_table)
        .where(_table.c.run == run, can_be_claimed(now))
        .order_by(_table.c.ordinal)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    claims = []
    for row in rows:
        held = claim(_evaluation(row), holder=holder, now=now, lease=lease)
        _write(connection, row.id, held)
        claims.append(Claim(row.id, held.fence, row.dataset_id, row.ordinal))
    return claims


def can_be_claimed(now: datetime) -> ColumnElement[bool]:
    """`Evaluation.can_be_claimed`, as a part of a query."""
    return (_table.c.state == State.PENDING.value) & (
        _table.c.not_before.is_(None) | (_table.c.not_before <= now)
    )


def lock(connection: Connection, ids: Sequence[int]) -> dict[int, Evaluation]:
    """Evaluations by their numbers, locked until the transaction ends."""
    found: dict[int, Evaluation] = {}
    for begin in range(0, len(ids), _KEYS_A_QUERY):
        rows = connection.execute(
            select(_table)
            .where(_table.c.id.in_(ids[begin : begin + _KEYS_A_QUERY]))
            .order_by(_table.c.id)
            .with_for_update()
        )
        found |= {row.id: _evaluation(row) for row in rows}
    return found


def save(
    connection: Connection,
    number: int,
    evaluation: Evaluation,
    *,
    answer: Answer | None = None,
    reason_code: str = "",
) -> None:
    """Store an evaluation's new state, and its answer where it has one."""
    _write(connection, number, evaluation, answer=answer, reason_code=reason_code)


def leased(connection: Connection, limit: int, *, by: datetime | None) -> list[tuple[int, str]]:
    """Evaluations that are leased, with their runs; `take_back` looks again under lock.

    Args:
        connection: The transaction.
        limit: How many at most.
        by: Only those whose lease has lapsed by then; None for all.
    """
    query = select(_table.c.id, _table.c.run).where(_table.c.state == State.LEASED.value)
    if by is not None:
        query = query.where(_table.c.leased_until <= by)
    rows = connection.execute(query.order_by(_table.c.leased_until).limit(limit))
    return [(row.id, row.run) for row in rows]


def take_back(
    connection: Connection,
    ids: Iterable[int],
    end: Callable[[Evaluation], Evaluation],
    reason_code: str,
) -> list[Evaluation]:
    """Take leases back; gives the evaluations as they then are.

    Args:
        connection: The transaction.
        ids: The evaluations.
        end: Ends a lease, or gives the evaluation back as it is.
        reason_code: Why, as the name of an ErrorReason without its prefix.
    """
    ended = []
    for number, evaluation in lock(connection, list(ids)).items():
        after = end(evaluation)
        if after is not evaluation:
            _write(connection, number, after, reason_code=reason_code)
            ended.append(after)
    return ended


def leased_counts(connection: Connection) -> dict[str, int]:
    """How many questions of each run are leased; runs without any are left out."""
    rows = connection.execute(
        select(_table.c.run, func.count())
        .where(_table.c.state == State.LEASED.value)
        .group_by(_table.c.run)
    )
    return {row[0]: row[1] for row in rows}


def take_up(connection: Connection, limit: int, *, run: str = "", owner: str | None = None) -> int:
    """End the pauses of open questions, of the oldest runs first.

    Args:
        connection: The transaction.
        limit: Questions at most.
        run: Only of this run; empty for all open ones.
        owner: Only of runs that were asked for on this owner's datasets; None for all.

    Returns:
        How many questions are now ready to be claimed, or under way.
    """
    query = (
        select(_table.c.id, _table.c.not_before)
        .join(schema.runs, schema.runs.c.id == _table.c.run)
        .where(
            schema.runs.c.state.in_(OPEN),
            _table.c.state.in_([State.PENDING.value, State.LEASED.value]),
        )
        .order_by(schema.runs.c.number, _table.c.ordinal)
        .limit(limit)
    )
    if run:
        query = query.where(schema.runs.c.id == run)
    if owner is not None:
        query = query.where(schema.runs.c.id.in_(askings.runs_of(owner)))
    rows = connection.execute(query).all()
    pausing = [row.id for row in rows if row.not_before is not None]
    connection.execute(
        update(_table)
        .where(_table.c.id.in_(pausing), _table.c.state == State.PENDING.value)
        .values(not_before=None)
    )
    return len(rows)


def next_claim_time(connection: Connection) -> datetime | None:
    """When the next pause of a pending question of an open run is over; None where none pauses."""
    found: datetime | None = connection.scalar(
        select(func.min(_table.c.not_before))
        .join(schema.runs, schema.runs.c.id == _table.c.run)
        .where(_table.c.state == State.PENDING.value, schema.runs.c.state.in_(OPEN))
    )
    return found


def reopen_failed(connection: Connection, run: str) -> int:
    """Open a run's failed questions again, as `evaluation.retry` does; returns how many."""
    result = connection.execute(
        update(_table)
        .where(_table.c.run == run, _table.c.state == State.FAILED.value)
        .values(
            state=State.PENDING.value,
            attempts=0,
            failures=0,
            not_before=None,
            reason="",
            reason_code="",
        )
    )
    return int(result.rowcount)


def reopen_all(connection: Connection, run: str) -> None:
    """Open all questions of a run again: its scores said nothing."""
    connection.execute(
        update(_table)
        .where(_table.c.run == run)
        .values(
            state=State.PENDING.value,
            attempts=0,
            failures=0,
            not_before=None,
            prediction=None,
            points=None,
            inference_end_time=None,
            reason="",
            reason_code="",
        )
    )


def fail_open(connection: Connection, run: str, reason: str, reason_code: str) -> int:
    """End every open question of a run: its model cannot be run. Returns how many.

    The fence grows, so that nothing that is still under way counts.
    """
    result = connection.execute(
        update(_table)
        .where(
            _table.c.run == run,
            _table.c.state.in_([State.PENDING.value, State.LEASED.value]),
        )
        .values(
            state=State.FAILED.value,
            fence=_table.c.fence + 1,
            leased_by=None,
            leased_until=None,
            started=False,
            reason=reason,
            reason_code=reason_code,
        )
    )
    return int(result.rowcount)


def list_results(connection: Connection, run: Run, after: int, limit: int) -> list[Result]:
    """A run's evaluations in the questions' order, after one."""
    rows = connection.execute(
        select(_table)
        .where(_table.c.run == run.id, _table.c.ordinal > after)
        .order_by(_table.c.ordinal)
        .limit(limit)
    ).all()
    questions = definitions.questions_by_rows(connection, [row.dataset_id for row in rows])
    return [
        Result(questions[row.dataset_id], _evaluation(row), run.full_marks, _answer(row))
        for row in rows
    ]


def _write(
    connection: Connection,
    number: int,
    evaluation: Evaluation,
    *,
    answer: Answer | None = None,
    reason_code: str = "",
) -> None:
    values: dict[str, Any] = {
        "state": evaluation.state.value,
        "fence": evaluation.fence,
        "attempts": evaluation.attempts,
        "failures": evaluation.failures,
        "not_before": evaluation.not_before,
        "leased_by": evaluation.holder,
        "leased_until": evaluation.until,
        "started": evaluation.started,
        "prediction": None if evaluation.prediction is None else str(evaluation.prediction),
        "points": evaluation.points,
        "reason": evaluation.reason or "",
        "reason_code": reason_code,
    }
    if answer is not None:
        values |= {
            "prompt": answer.prompt,
            "sum_logprobs": answer.sum_logprobs,
            "predictions": answer.predictions,
            "reply": answer.reply,
            "extracted": answer.extracted,
            "judging": answer.judging,
            "inference_start_time": answer.start_time,
            "inference_end_time": answer.end_time,
            "inference_reference": answer.reference,
            "latency_microseconds": (answer.end_time - answer.start_time)
            // timedelta(microseconds=1),
            "worker": answer.worker,
            "engine_build": answer.engine_build,
        }
    connection.execute(_UPDATE, {"number": number, **values})


def _evaluation(row: Row[Any]) -> Evaluation:
    return Evaluation(
        state=State(row.state),
        fence=row.fence,
        attempts=row.attempts,
        failures=row.failures,
        not_before=row.not_before,
        holder=row.leased_by,
        until=row.leased_until,
        started=row.started,
        prediction=None if row.prediction is None else int(row.prediction),
        points=row.points,
        reason=row.reason or None,
    )


def _answer(row: Row[Any]) -> Answer | None:
    if row.inference_end_time is None:
        return None
    return Answer(
        prompt=row.prompt,
        sum_logprobs=None if row.sum_logprobs is None else tuple(row.sum_logprobs),
        predictions=row.predictions,
        reply=row.reply,
        extracted=row.extracted,
        judging=row.judging,
        start_time=row.inference_start_time,
        end_time=row.inference_end_time,
        reference=row.inference_reference,
        worker=row.worker,
        engine_build=row.engine_build,
    )

"""Pools and their contributions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, select, update

from evalpool_benchmark.payout import Contribution
from evalpool_benchmark.pool import Phase, Pool, PoolState, SubjectKind
from evalpool_benchmark.schema import contributions, entries, pools
from evalpool_runtime.errors import NotFound, reasons

_MICROSECOND = timedelta(microseconds=1)


def create(connection: Connection, pool: Pool) -> None:
    """Keep a new pool, still without contributions."""
    connection.execute(insert(pools).values(**_columns(pool)))


def require(
    connection: Connection, pool_id: str, *, field: str = "pool", lock: bool = False
) -> Pool:
    """A pool that a call names.

    Args:
        connection: The transaction.
        pool_id: The pool's id.
        field: The request's field that names it.
        lock: Nobody else decides on it until the transaction ends.

    Raises:
        NotFound: There is none.
    """
    query = select(pools).where(pools.c.id == pool_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise NotFound(
            reasons.ERROR_REASON_POOL_NOT_FOUND,
            f'{field}: there is none with the id "{pool_id}"; ListPools lists them',
            pool=pool_id,
        )
    return _pool(row)


def lock(connection: Connection, pool_id: str) -> Pool | None:
    """A pool, or None; nobody else decides on it until the transaction ends."""
    row = connection.execute(select(pools).where(pools.c.id == pool_id).with_for_update()).first()
    return None if row is None else _pool(row)


def save(connection: Connection, pool: Pool) -> None:
    """Keep what has changed of a locked pool."""
    connection.execute(update(pools).where(pools.c.id == pool.id).values(**_columns(pool)))


def page(
    connection: Connection,
    *,
    now: datetime,
    limit: int,
    before: int | None = None,
    dataset: str = "",
    state: PoolState | None = None,
) -> list[Pool]:
    """Pools, newest first.

    Args:
        connection: The transaction.
        now: When the states are asked for.
        limit: Pools at most.
        before: Only pools whose sequence is below this one.
        dataset: Only pools on this dataset.
        state: Only pools in this state.
    """
    query = select(pools).order_by(pools.c.sequence.desc()).limit(limit)
    if before is not None:
        query = query.where(pools.c.sequence < before)
    if dataset:
        query = query.where(pools.c.dataset == dataset)
    if state is not None:
        query = query.where(_in_state(state, now))
    return [_pool(row) for row in connection.execute(query)]


def unsettled_after_end(connection: Connection, now: datetime) -> list[str]:
    """Ids of the pools whose end has come and that are not settled, the earliest end first."""
    query = (
        select(pools.c.id)
        .where(pools.c.phase.in_([Phase.RUNNING, Phase.PAYING]), pools.c.end_time <= now)
        .order_by(pools.c.end_time)
    )
    return list(connection.scalars(query))


def running(connection: Connection, now: datetime) -> list[str]:
    """Ids of the pools that have started and whose result is not frozen."""
    query = (
        select(pools.c.id)
        .where(pools.c.phase == Phase.RUNNING, pools.c.start_time <= now)
        .order_by(pools.c.sequence)
    )
    return list(connection.scalars(query))


def next_end(connection: Connection, now: datetime) -> datetime | None:
    """The earliest end still to come."""
    query = (
        select(pools.c.end_time)
        .where(pools.c.phase == Phase.RUNNING, pools.c.end_time > now)
        .order_by(pools.c.end_time)
        .limit(1)
    )
    return connection.scalar(query)


def add_contribution(connection: Connection, pool: Pool, contribution: Contribution) -> None:
    """Add a contribution to a locked pool's funds."""
    connection.execute(
        insert(contributions).values(
            transfer=contribution.transfer,
            pool=pool.id,
            payer=contribution.payer,
            quantity=contribution.quantity,
            time=contribution.time,
            sequence=contribution.sequence,
        )
    )
    connection.execute(
        update(pools).where(pools.c.id == pool.id).values(funds=pool.funds + contribution.quantity)
    )


def contributions_of(connection: Connection, pool_id: str) -> list[Contribution]:
    """A pool's contributions, in the ledger's order."""
    query = (
        select(contributions)
        .where(contributions.c.pool == pool_id)
        .order_by(contributions.c.sequence)
    )
    return [contribution_of(row) for row in connection.execute(query)]


def contribution_of(row: Row[Any]) -> Contribution:
    """The contribution of a row."""
    return Contribution(
        transfer=row.transfer,
        payer=row.payer,
        quantity=row.quantity,
        time=row.time,
        sequence=row.sequence,
    )


def entry_counts(connection: Connection, pool_ids: Sequence[str]) -> dict[str, int]:
    """Entries of every status, by pool."""
    query = (
        select(entries.c.pool, func.count())
        .where(entries.c.pool.in_(pool_ids))
        .group_by(entries.c.pool)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _in_state(state: PoolState, now: datetime) -> ColumnElement[bool]:
    running = pools.c.phase == Phase.RUNNING
    match state:
        case PoolState.SCHEDULED:
            return and_(running, pools.c.start_time > now)
        case PoolState.OPEN:
            return and_(running, pools.c.start_time <= now, pools.c.end_time > now)
        case PoolState.CLOSING:
            return and_(running, pools.c.end_time <= now)
        case _:
            return pools.c.phase == state.value


def _columns(pool: Pool) -> dict[str, Any]:
    return {
        "id": pool.id,
        "sequence": pool.sequence,
        "title": pool.title,
        "funder": pool.funder,
        "funds": pool.funds,
        "dataset": pool.dataset,
        "dataset_version": pool.dataset_version,
        "dataset_owner": pool.dataset_owner,
        "question_count": pool.question_count,
        "evaluator": pool.evaluator,
        "allocation": pool.allocation,
        "tie_rule": pool.tie_rule,
        "start_time": pool.start_time,
        "end_time": pool.end_time,
        "grace_microseconds": pool.grace // _MICROSECOND,
        "minimum_score": pool.minimum_score,
        "max_entries_per_day": pool.max_entries_per_day,
        "phase": pool.phase.value,
        "freeze_time": pool.freeze_time,
        "settle_time": pool.settle_time,
        "subject_kind": pool.subject_kind.value,
    }


def _pool(row: Row[Any]) -> Pool:
    values = dict(row._mapping)
    values["grace"] = values.pop("grace_microseconds") * _MICROSECOND
    values["phase"] = Phase(values["phase"])
    values["subject_kind"] = SubjectKind(values["subject_kind"])
    return Pool(**values)

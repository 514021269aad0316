"""Pools as callers see them: with their entries counted, and what was and will be paid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from evalpool_benchmark.payout import Contribution, PayoutLine, plan
from evalpool_benchmark.pool import Pool, PoolState
from evalpool_benchmark.ranking import rank
from evalpool_benchmark.store import entries, pools, results


@dataclass(frozen=True, slots=True)
class Listed:
    """A pool and how many entries it has, of every status."""

    pool: Pool
    entry_count: int


@dataclass(frozen=True, slots=True)
class Overview:
    """A pool with its money.

    Attributes:
        listed: The pool.
        contributions: What was paid into it, in order.
        payouts: The payout plan: projected, or committed with its receipts.
        payouts_final: True once the plan is committed.
    """

    listed: Listed
    contributions: tuple[Contribution, ...]
    payouts: tuple[PayoutLine, ...]
    payouts_final: bool


def look_at(connection: Connection, pool_id: str) -> Overview:
    """A pool with its money.

    Raises:
        NotFound: There is no such pool.
    """
    pool = pools.require(connection, pool_id, field="id")
    paid = pools.contributions_of(connection, pool_id)
    entered = entries.of_pool(connection, pool_id)
    committed = tuple(results.plan_of(connection, pool_id))
    return Overview(
        listed=Listed(pool, len(entered)),
        contributions=tuple(paid),
        payouts=committed or plan(pool, rank(entered, pool.minimum), paid),
        payouts_final=bool(committed),
    )


def page(
    connection: Connection,
    *,
    now: datetime,
    limit: int,
    before: int | None,
    dataset: str,
    state: PoolState | None,
) -> list[Listed]:
    """Pools, newest first; see `store.pools.page`."""
    found = pools.page(
        connection, now=now, limit=limit, before=before, dataset=dataset, state=state
    )
    return _counted(connection, found)


def some(connection: Connection, pool_ids: Sequence[str]) -> list[Listed]:
    """Some pools, in the order of their ids.

    Raises:
        NotFound: One of them does not exist.
    """
    return _counted(connection, [pools.require(connection, pool_id) for pool_id in pool_ids])


def _counted(connection: Connection, found: Sequence[Pool]) -> list[Listed]:
    counts = pools.entry_counts(connection, [pool.id for pool in found])
    return [Listed(pool, counts.get(pool.id, 0)) for pool in found]

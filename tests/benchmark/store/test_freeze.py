"""The freeze against everything that would change a result at the same moment."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

from evalpool_benchmark.closing import freeze_if_due, settle_if_paid
from evalpool_benchmark.decisions import decide
from evalpool_benchmark.funding import Credit, FundingState, TopUp
from evalpool_benchmark.pool import Phase, Pool
from evalpool_benchmark.store import pools, results
from evalpool_runtime.database import Database

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=1)


def credit(sequence: int) -> Credit:
    return Credit(f"transfer-{sequence}", "payer", 10, (), START, sequence)


async def make_pool(store: Database) -> None:
    first = credit(1)
    pool = Pool(
        id=first.transfer,
        sequence=1,
        title="",
        funder="payer",
        dataset="siqa",
        dataset_version="version",
        dataset_owner="owner",
        question_count=10,
        evaluator="letter",
        allocation="Equal",
        tie_rule="earliest",
        start_time=START,
        end_time=END,
        grace=timedelta(),
    )
    await store.write(partial(decide, credit=first, decision=pool, cursor=1))


async def test_top_ups_at_the_moment_of_the_freeze_are_in_the_plan_or_go_back(
    store: Database,
) -> None:
    await make_pool(store)
    freeze = partial(freeze_if_due, pool_id="transfer-1", reached=True, now=END)
    outcomes = await asyncio.gather(
        *(
            store.write(
                partial(
                    decide,
                    credit=credit(sequence),
                    decision=TopUp("transfer-1"),
                    cursor=sequence,
                )
            )
            for sequence in range(2, 8)
        ),
        store.write(freeze),
        *(
            store.write(
                partial(
                    decide,
                    credit=credit(sequence),
                    decision=TopUp("transfer-1"),
                    cursor=sequence,
                )
            )
            for sequence in range(8, 14)
        ),
    )
    added = sum(outcome is FundingState.ADDED for outcome in outcomes)
    refunded = sum(outcome is FundingState.REFUNDED for outcome in outcomes)
    assert added + refunded == 12
    plan = await store.read(partial(results.plan_of, pool="transfer-1"))
    assert sum(line.quantity for line in plan) == 10 * (added + 1)
    pool = await store.read(partial(pools.require, pool_id="transfer-1"))
    assert (pool.phase, pool.funds) == (Phase.PAYING, 10 * (added + 1))


async def test_replicas_that_freeze_at_once_make_one_plan(store: Database) -> None:
    await make_pool(store)
    freeze = partial(freeze_if_due, pool_id="transfer-1", reached=True, now=END)
    frozen = await asyncio.gather(*(store.write(freeze) for _ in range(6)))
    assert {pool.phase for pool, _ in frozen} == {Phase.PAYING}
    assert len(await store.read(partial(results.plan_of, pool="transfer-1"))) == 1
    assert await store.read(partial(results.newest_revision, pool="transfer-1")) == 1


async def test_a_pool_is_settled_only_once_every_line_has_its_receipt(store: Database) -> None:
    await make_pool(store)
    settle = partial(settle_if_paid, pool_id="transfer-1", now=END)
    assert await store.write(settle) is None
    await store.write(partial(freeze_if_due, pool_id="transfer-1", reached=True, now=END))
    assert await store.write(settle) is None
    await store.write(partial(results.add_receipts, pool="transfer-1", receipts={0: "receipt"}))
    settled = await store.write(settle)
    assert settled is not None
    assert (settled.phase, settled.settle_time) == (Phase.RETURNED, END)
    assert await store.write(settle) is None

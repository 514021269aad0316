"""Decisions on credits, on both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from evalpool_benchmark.decisions import decide
from evalpool_benchmark.funding import Credit, FundingState, Refusal, TopUp
from evalpool_benchmark.pool import Phase, Pool, PoolState
from evalpool_benchmark.store import fundings, pools
from evalpool_runtime.database import Database

PAID = datetime(2026, 3, 1, tzinfo=UTC)
END = PAID + timedelta(days=30)


def credit(sequence: int, quantity: int = 100, payer: str = "payer", **at: datetime) -> Credit:
    return Credit(
        transfer=f"transfer-{sequence}",
        payer=payer,
        quantity=quantity,
        tags=(),
        time=at.get("time", PAID),
        sequence=sequence,
    )


def pool_of(made_by: Credit) -> Pool:
    return Pool(
        id=made_by.transfer,
        sequence=made_by.sequence,
        title="A pool",
        funder=made_by.payer,
        dataset="siqa",
        dataset_version="version",
        dataset_owner="owner",
        question_count=10,
        evaluator="loglikelihood",
        allocation="Equal",
        tie_rule="earliest",
        start_time=PAID,
        end_time=END,
        grace=timedelta(hours=24, microseconds=1),
        minimum_score="1/3",
        max_entries_per_day=3,
    )


async def test_a_pool_is_kept_as_it_was_made(store: Database) -> None:
    huge = credit(1, quantity=10**39 - 1)
    state = await store.write(partial(decide, credit=huge, decision=pool_of(huge), cursor=1))
    assert state is FundingState.CREATED
    kept = await store.read(partial(pools.require, pool_id="transfer-1"))
    assert kept == replace(pool_of(huge), funds=10**39 - 1)
    funding = await store.read(partial(fundings.get, transfer="transfer-1"))
    assert funding is not None
    assert (funding.state, funding.pool) == (FundingState.CREATED, "transfer-1")
    assert await store.read(partial(fundings.cursor, name=fundings.NOTICES)) == 1


async def test_a_credit_is_decided_once_whatever_is_decided_the_second_time(
    store: Database,
) -> None:
    first = credit(1)
    refusal = Refusal("why", "INVALID_TAG")
    await store.write(partial(decide, credit=first, decision=pool_of(first), cursor=1))
    again = await store.write(partial(decide, credit=first, decision=refusal, cursor=2))
    assert again is None
    assert await store.read(fundings.refunds_due) == []
    pool = await store.read(partial(pools.require, pool_id="transfer-1"))
    assert pool.funds == 100
    assert await store.read(partial(fundings.cursor, name=fundings.NOTICES)) == 2


async def test_replicas_that_decide_at_once_decide_once(store: Database) -> None:
    one = credit(1)
    states = await asyncio.gather(
        *(
            store.write(partial(decide, credit=one, decision=pool_of(one), cursor=1))
            for _ in range(8)
        )
    )
    assert sorted(states, key=str) == sorted([FundingState.CREATED] + [None] * 7, key=str)
    paid = await store.read(partial(pools.contributions_of, pool_id="transfer-1"))
    assert len(paid) == 1


async def test_the_cursor_never_goes_back(store: Database) -> None:
    for sequence, cursor in ((5, 5), (3, 3)):
        refusal = Refusal("why", "INVALID_TAG")
        await store.write(partial(decide, credit=credit(sequence), decision=refusal, cursor=cursor))
    assert await store.read(partial(fundings.cursor, name=fundings.NOTICES)) == 5


async def test_top_ups_at_once_are_all_added(store: Database) -> None:
    first = credit(1)
    await store.write(partial(decide, credit=first, decision=pool_of(first), cursor=1))
    states = await asyncio.gather(
        *(
            store.write(
                partial(
                    decide,
                    credit=credit(sequence, quantity=10**30),
                    decision=TopUp("transfer-1"),
                    cursor=sequence,
                )
            )
            for sequence in range(2, 12)
        )
    )
    assert set(states) == {FundingState.ADDED}
    pool = await store.read(partial(pools.require, pool_id="transfer-1"))
    paid = await store.read(partial(pools.contributions_of, pool_id="transfer-1"))
    assert pool.funds == 100 + 10 * 10**30 == sum(each.quantity for each in paid)
    assert [each.sequence for each in paid] == list(range(1, 12))


async def test_a_top_up_is_judged_at_its_own_time(store: Database) -> None:
    first = credit(1)
    await store.write(partial(decide, credit=first, decision=pool_of(first), cursor=1))
    top_up = TopUp("transfer-1")
    moment = timedelta(microseconds=1)
    in_time = credit(2, time=END - moment)
    late = credit(3, time=END)
    assert await store.write(partial(decide, credit=in_time, decision=top_up, cursor=2)) is (
        FundingState.ADDED
    )
    assert await store.write(partial(decide, credit=late, decision=top_up, cursor=3)) is (
        FundingState.REFUNDED
    )
    pool = await store.read(partial(pools.require, pool_id="transfer-1"))
    await store.write(partial(pools.save, pool=replace(pool, phase=Phase.PAYING)))
    frozen = credit(4, time=END - moment)
    assert await store.write(partial(decide, credit=frozen, decision=top_up, cursor=4)) is (
        FundingState.REFUNDED
    )
    due = await store.read(fundings.refunds_due)
    assert [(each.transfer, each.reason_code) for each in due] == [
        ("transfer-3", "POOL_CLOSED"),
        ("transfer-4", "POOL_CLOSED"),
    ]


async def test_a_top_up_of_no_pool_is_refunded(store: Database) -> None:
    await store.write(partial(decide, credit=credit(1), decision=TopUp("no-pool"), cursor=1))
    (due,) = await store.read(fundings.refunds_due)
    assert (due.payer, due.quantity, due.reason_code) == ("payer", 100, "POOL_NOT_FOUND")


async def test_a_refund_is_due_until_its_receipt_is_kept(store: Database) -> None:
    refusal = Refusal("X-Dataset is missing.", "INVALID_TAG")
    await store.write(partial(decide, credit=credit(1), decision=refusal, cursor=1))
    assert [each.transfer for each in await store.read(fundings.refunds_due)] == ["transfer-1"]
    await store.write(partial(fundings.refunded, transfer="transfer-1", refund_transfer="receipt"))
    assert await store.read(fundings.refunds_due) == []
    funding = await store.read(partial(fundings.get, transfer="transfer-1"))
    assert funding is not None
    assert (funding.refund_transfer, funding.reason) == ("receipt", "X-Dataset is missing.")


async def test_minted_units_stay_and_stay_visible(store: Database) -> None:
    minted = credit(1, payer="")
    state = await store.write(
        partial(decide, credit=minted, decision=Refusal("why", "INVALID_TAG"), cursor=1)
    )
    assert state is FundingState.KEPT
    assert await store.read(fundings.refunds_due) == []
    funding = await store.read(partial(fundings.get, transfer="transfer-1"))
    assert funding is not None
    assert (funding.state, funding.quantity) == (FundingState.KEPT, 100)


async def test_pools_are_paged_newest_first_and_filtered_by_state_and_dataset(
    store: Database,
) -> None:
    for sequence in range(1, 6):
        made_by = credit(sequence)
        pool = replace(
            pool_of(made_by),
            dataset="siqa" if sequence % 2 else "other",
            start_time=PAID + timedelta(days=sequence),
        )
        await store.write(partial(decide, credit=made_by, decision=pool, cursor=sequence))
    now = PAID + timedelta(days=3)

    def page(**filters: object) -> partial[list[Pool]]:
        return partial(pools.page, now=now, limit=10, **filters)  # type: ignore[arg-type]

    assert [p.sequence for p in await store.read(page())] == [5, 4, 3, 2, 1]
    assert [p.sequence for p in await store.read(page(before=3))] == [2, 1]
    assert [p.sequence for p in await store.read(page(dataset="siqa"))] == [5, 3, 1]
    for state in PoolState:
        found = await store.read(page(state=state))
        assert all(p.state(now) is state for p in found)
    assert [p.sequence for p in await store.read(page(state=PoolState.OPEN))] == [3, 2, 1]
    later = partial(pools.page, now=END, limit=10, state=PoolState.CLOSING)
    assert len(await store.read(later)) == 5


async def test_the_next_end_is_the_earliest_still_to_come(store: Database) -> None:
    assert await store.read(partial(pools.next_end, now=PAID)) is None
    for sequence, days in ((1, 9), (2, 3), (3, 6)):
        made_by = credit(sequence)
        pool = replace(pool_of(made_by), end_time=PAID + timedelta(days=days))
        await store.write(partial(decide, credit=made_by, decision=pool, cursor=sequence))
    assert await store.read(partial(pools.next_end, now=PAID + timedelta(days=3))) == (
        PAID + timedelta(days=6)
    )
    ended = await store.read(partial(pools.unsettled_after_end, now=PAID + timedelta(days=6)))
    assert ended == ["transfer-2", "transfer-3"]

"""Entries, on both databases: joining under the pool's lock, quotas, scores."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from evalpool_benchmark.admission import Join, exclude, join, take_out
from evalpool_benchmark.datasets import SubjectInfo
from evalpool_benchmark.decisions import decide
from evalpool_benchmark.entry import (
    FIRST_PAUSE,
    Entry,
    EntryState,
    RunState,
    Score,
    bind,
    cut_off,
    refuse,
)
from evalpool_benchmark.funding import Credit
from evalpool_benchmark.pool import Phase, Pool
from evalpool_benchmark.store import entries, pools
from evalpool_runtime.database import Database
from evalpool_runtime.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=30)
NOW = START + timedelta(hours=1)
CATALOGUE = SubjectInfo(name="A model", owner="")
SUBJECT = "a" * 64


async def make_pool(store: Database, number: int = 1, **changes: object) -> Pool:
    credit = Credit(f"pool-{number}", "funder", 100, (), START, number)
    pool = Pool(
        id=credit.transfer,
        sequence=number,
        title="A pool",
        funder="funder",
        dataset="siqa",
        dataset_version="version",
        dataset_owner="owner",
        question_count=10,
        evaluator="loglikelihood",
        allocation="Equal",
        tie_rule="earliest",
        start_time=START,
        end_time=END,
        grace=timedelta(hours=24),
    )
    pool = replace(pool, **changes)  # type: ignore[arg-type]
    await store.write(partial(decide, credit=credit, decision=pool, cursor=number))
    return pool


async def enter(
    store: Database,
    subject: str = SUBJECT,
    participant: str = "somebody",
    *,
    pool: str = "pool-1",
    request_id: str = "",
    now: datetime = NOW,
    info: SubjectInfo = CATALOGUE,
    is_operator: bool = False,
) -> Entry:
    asked = Join(pool, subject, participant, request_id or f"join-{subject}-{now}", is_operator)
    return await store.write(partial(join, asked=asked, subject=info, now=now))


async def end(store: Database, entry: Entry) -> Entry:
    """Fail an entry for its subject's fault."""
    failed = refuse(entry, "it is no GGUF", "INVALID_GGUF", NOW)
    await store.write(partial(entries.save, entry=failed))
    return failed


async def test_an_entry_is_kept_as_it_was_made(store: Database) -> None:
    await make_pool(store)
    entry = await enter(store)
    assert await store.read(partial(entries.require, entry_id=entry.id)) == entry
    assert (entry.state, entry.join_time, entry.join_order) == (EntryState.SUBMITTED, NOW, 1)
    assert await store.read(partial(entries.due, now=NOW)) == [entry]


async def test_a_subject_is_entered_once_however_many_ask_at_once(store: Database) -> None:
    await make_pool(store)
    results = await asyncio.gather(
        *(enter(store, participant=f"participant-{n}") for n in range(6)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Entry) for result in results) == 1
    refused = [result for result in results if isinstance(result, AlreadyExists)]
    assert [error.reason_name for error in refused] == ["ALREADY_ENTERED"] * 5
    assert all("participant-" not in error.message for error in refused)


async def test_the_same_request_joins_once_however_often_it_is_sent(store: Database) -> None:
    await make_pool(store)
    same = await asyncio.gather(*(enter(store, request_id="mine") for _ in range(4)))
    assert len({entry.id for entry in same}) == 1
    assert {entry.attempt for entry in same} == {1}


async def test_a_request_id_for_another_subject_is_refused(store: Database) -> None:
    await make_pool(store)
    await enter(store, request_id="mine")
    with pytest.raises(AlreadyExists) as refused:
        await enter(store, "b" * 64, request_id="mine")
    assert refused.value.reason_name == "REQUEST_ID_REUSED"
    await enter(store, "b" * 64, "another", request_id="mine")


async def test_a_request_id_used_in_two_pools_at_once_joins_one(store: Database) -> None:
    for number in range(1, 7):
        await make_pool(store, number)
    results = await asyncio.gather(
        *(enter(store, pool=f"pool-{n}", request_id="mine") for n in range(1, 7)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Entry) for result in results) == 1
    refused = [result for result in results if isinstance(result, AlreadyExists)]
    assert [error.reason_name for error in refused] == ["REQUEST_ID_REUSED"] * 5
    assert len(await store.read(partial(entries.due, now=NOW))) == 1


@pytest.mark.parametrize(
    ("now", "reason"),
    [(START - timedelta(seconds=1), "POOL_NOT_STARTED"), (END, "POOL_CLOSED")],
)
async def test_a_pool_takes_entries_between_its_start_and_its_end(
    store: Database, now: datetime, reason: str
) -> None:
    await make_pool(store)
    with pytest.raises(FailedPrecondition) as refused:
        await enter(store, now=now)
    assert refused.value.reason_name == reason


async def test_a_repeat_after_the_end_still_gets_its_entry(store: Database) -> None:
    await make_pool(store)
    entry = await enter(store, request_id="mine")
    assert await enter(store, request_id="mine", now=END) == entry


async def test_a_pool_that_does_not_exist_is_not_found(store: Database) -> None:
    with pytest.raises(NotFound) as refused:
        await enter(store)
    assert refused.value.reason_name == "POOL_NOT_FOUND"


async def test_an_uploaded_model_is_entered_only_by_its_owner(store: Database) -> None:
    await make_pool(store)
    uploaded = SubjectInfo(name="Mine", owner="its-owner")
    with pytest.raises(PermissionDenied) as refused:
        await enter(store, info=uploaded)
    assert refused.value.reason_name == "SUBJECT_NOT_OWNED"
    assert "its-owner" not in refused.value.message
    assert (await enter(store, participant="its-owner", info=uploaded)).participant == "its-owner"


async def test_the_operator_and_the_datasets_owner_take_no_prize(store: Database) -> None:
    await make_pool(store)
    assert (await enter(store, "a" * 64, "the-operator", is_operator=True)).prize_free
    assert (await enter(store, "b" * 64, "owner")).prize_free
    assert not (await enter(store, "c" * 64, "funder")).prize_free


async def test_a_failed_entry_is_entered_again_by_its_participant_only(store: Database) -> None:
    await make_pool(store)
    failed = await end(store, await enter(store))
    await enter(store, "b" * 64)
    with pytest.raises(AlreadyExists):
        await enter(store, participant="another", request_id="theirs")
    again = await enter(store, request_id="again", now=NOW + timedelta(hours=1))
    assert (again.id, again.attempt, again.state) == (failed.id, 2, EntryState.SUBMITTED)
    assert again.join_order == 3, "it joins anew, behind the others"
    assert again.reason == ""


async def test_a_withdrawn_entry_is_entered_again_and_a_running_one_not(store: Database) -> None:
    await make_pool(store)
    entry = await enter(store)
    with pytest.raises(AlreadyExists):
        await enter(store, request_id="again")
    await store.write(partial(take_out, entry=entry.id, participant="somebody", now=NOW))
    assert (await enter(store, request_id="again")).attempt == 2


async def test_the_days_entries_are_limited_and_come_back_after_24_hours(store: Database) -> None:
    await make_pool(store, max_entries_per_day=2)
    await enter(store, "a" * 64, now=NOW)
    await enter(store, "b" * 64, now=NOW + timedelta(hours=1))
    with pytest.raises(ResourceExhausted) as refused:
        await enter(store, "c" * 64, now=NOW + timedelta(hours=2))
    assert refused.value.reason_name == "ENTRY_LIMIT"
    assert refused.value.retry_after == timedelta(hours=22).total_seconds()
    await enter(store, "c" * 64, "another", now=NOW + timedelta(hours=2))
    await enter(store, "d" * 64, now=NOW + timedelta(hours=24))


async def test_a_failed_entry_gives_its_place_back_and_a_withdrawn_one_does_not(
    store: Database,
) -> None:
    await make_pool(store, max_entries_per_day=1)
    await end(store, await enter(store, "a" * 64))
    second = await enter(store, "b" * 64)
    await store.write(partial(take_out, entry=second.id, participant="somebody", now=NOW))
    with pytest.raises(ResourceExhausted):
        await enter(store, "c" * 64)


async def test_only_the_participant_withdraws_and_only_while_the_pool_is_open(
    store: Database,
) -> None:
    await make_pool(store)
    entry = await enter(store)
    with pytest.raises(PermissionDenied):
        await store.write(partial(take_out, entry=entry.id, participant="another", now=NOW))
    with pytest.raises(FailedPrecondition) as late:
        await store.write(partial(take_out, entry=entry.id, participant="somebody", now=END))
    assert late.value.reason_name == "ENTRY_STATE"
    gone = await store.write(partial(take_out, entry=entry.id, participant="somebody", now=NOW))
    assert gone.state is EntryState.WITHDRAWN
    again = await store.write(partial(take_out, entry=entry.id, participant="somebody", now=END))
    assert again == gone


async def test_a_disqualified_entry_can_neither_be_withdrawn_nor_entered_again(
    store: Database,
) -> None:
    await make_pool(store)
    entry = await enter(store)
    out = await store.write(partial(exclude, entry=entry.id, reason="a copy", now=END))
    assert (out.state, out.reason) == (EntryState.DISQUALIFIED, "a copy")
    with pytest.raises(FailedPrecondition):
        await store.write(partial(take_out, entry=entry.id, participant="somebody", now=NOW))
    with pytest.raises(AlreadyExists):
        await enter(store, request_id="again")


async def test_nobody_is_disqualified_once_the_result_is_frozen(store: Database) -> None:
    pool = await make_pool(store)
    entry = await enter(store)
    await store.write(partial(pools.save, pool=replace(pool, phase=Phase.PAYING)))
    with pytest.raises(FailedPrecondition):
        await store.write(partial(exclude, entry=entry.id, reason="a copy", now=END))


async def test_open_runs_are_those_in_flight_and_those_that_can_mend(store: Database) -> None:
    await make_pool(store)
    await make_pool(store, 2)
    for n, (state, code) in enumerate(
        [
            (RunState.RUNNING, ""),
            (RunState.COMPLETE, ""),
            (RunState.FAILED, "INVALID_GGUF"),
            (RunState.FAILED, "EVALUATION_FAILED"),
        ]
    ):
        entry = await enter(store, f"{n:064}", pool="pool-2" if n else "pool-1")
        score = Score(f"run-{n}", n + 1, state, 1, 2, 10, 1, 1, reason_code=code)
        await store.write(partial(entries.save, entry=bind(entry, score, NOW)))
    assert sorted(await store.read(entries.open_runs)) == ["run-0", "run-3"]
    assert await store.read(partial(entries.open_runs, pool="pool-2")) == ["run-3"]
    (mendable,) = await store.write(partial(entries.lock_of_runs, runs=["run-3"]))
    await store.write(partial(entries.save, entry=cut_off(mendable, NOW)))
    assert await store.read(partial(entries.open_runs, pool="pool-2")) == []


async def test_due_are_new_entries_first_and_then_those_whose_pause_is_over(
    store: Database,
) -> None:
    await make_pool(store)
    await make_pool(store, 2)
    failed = await enter(store, "a" * 64)
    await store.write(partial(entries.save, entry=refuse(failed, "why", "NO_WORKER", NOW)))
    broken = await enter(store, "b" * 64)
    await end(store, broken)
    new = await enter(store, "c" * 64, pool="pool-2")

    async def due(now: datetime, pool: str | None = None) -> list[str]:
        return [entry.id for entry in await store.read(partial(entries.due, now=now, pool=pool))]

    assert await due(NOW) == [new.id]
    over = NOW + FIRST_PAUSE
    assert await due(over) == [new.id, failed.id]
    assert await due(over, "pool-1") == [failed.id]
    (waiting,) = await store.read(partial(entries.due, now=over, pool="pool-1"))
    await store.write(partial(entries.save, entry=cut_off(waiting, over)))
    assert await due(over, "pool-1") == []

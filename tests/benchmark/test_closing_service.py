"""How long a pool's end waits for what is not evaluated yet, and why."""

from __future__ import annotations

from datetime import UTC, timedelta

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from evalpool.dataset.v1 import dataset_pb2
from evalpool_runtime.errors import FailedPrecondition, reasons
from tests.benchmark.world import World

DAY = timedelta(days=1)
END = 31 * DAY


async def test_work_in_flight_gets_the_grace_time(world: World) -> None:
    pool = await world.pool(await world.funder(), Grace="PT6H")
    done, late = world.person(), world.person()
    first, second = world.dataset.add_model(1), world.dataset.add_model(2)
    for digest, person in ((first, done), (second, late)):
        entry = await world.join(pool, digest, person)
        await world.entry_in(person, entry.id, pb.ENTRY_STATE_QUEUED)
    await world.dataset.complete(first, 3)
    end = (await world.show(pool)).pool.end_time.ToDatetime()
    world.clock.advance(end - world.clock.now().replace(tzinfo=None))
    (closing,) = await world.allocate(pool)
    assert closing.state == pb.POOL_STATE_CLOSING
    # In grace it still counts.
    await world.dataset.complete(second, 9)
    (ended,) = await world.allocate(pool)
    assert ended.state == pb.POOL_STATE_PAID
    assert await world.balance(late) > await world.balance(done) > 0


async def test_what_is_incomplete_after_the_grace_is_ineligible_with_a_public_reason(
    world: World,
) -> None:
    pool = await world.pool(await world.funder(), Grace="PT6H")
    (winner,) = await world.scored_entries(pool, [3])
    late = world.person()
    digest = world.dataset.add_model(2)
    entry = await world.join(pool, digest, late)
    await world.entry_in(late, entry.id, pb.ENTRY_STATE_QUEUED)
    await world.dataset.set_score(digest, dataset_pb2.RUN_STATE_RUNNING, correct=8, done=8)
    await world.entry_in(late, entry.id, pb.ENTRY_STATE_RUNNING)
    world.clock.advance(END)
    (ended,) = await world.allocate(pool)
    assert ended.state == pb.POOL_STATE_PAID
    assert (await world.balance(winner), await world.balance(late)) == (100, 0)
    public = (await world.pools(world.person()).GetEntry(pb.GetEntryRequest(id=entry.id))).entry
    assert (public.state, public.reason_code) == (pb.ENTRY_STATE_FAILED, "POOL_CLOSED")
    assert "8 of 10" in public.reason
    board = (
        await world.pools(late).GetLeaderboard(pb.GetLeaderboardRequest(pool=pool))
    ).leaderboard
    assert [(row.entry == entry.id, row.rank) for row in board.rows] == [(True, 1), (False, 2)]
    assert board.rows[0].ineligible_reason == public.reason
    await world.dataset.complete(digest, 10)
    again = (await world.pools(late).GetEntry(pb.GetEntryRequest(id=entry.id))).entry
    assert again.state == pb.ENTRY_STATE_FAILED


async def test_a_failure_of_the_machinery_extends_the_grace_to_seven_days(world: World) -> None:
    pool = await world.pool(await world.funder(), Duration="P1D", Grace="PT0S")
    person = world.person()
    digest = world.dataset.add_model(1)
    entry = await world.join(pool, digest, person)
    await world.entry_in(person, entry.id, pb.ENTRY_STATE_QUEUED)
    await world.dataset.set_score(
        digest, dataset_pb2.RUN_STATE_FAILED, done=5, reason_code="EVALUATION_FAILED"
    )
    failed = await world.entry_in(person, entry.id, pb.ENTRY_STATE_FAILED)
    world.clock.advance(6 * DAY)
    (closing,) = await world.allocate(pool)
    assert closing.state == pb.POOL_STATE_CLOSING
    again = await world.entry_in(person, entry.id, pb.ENTRY_STATE_QUEUED, failed.revision)
    assert world.dataset.benchmarked[-1].request_id == f"{entry.id}:retry:1"
    # While it is tried again, its pool still waits for it.
    (closing,) = await world.allocate(pool)
    assert closing.state == pb.POOL_STATE_CLOSING
    await world.dataset.complete(digest, 7)
    await world.entry_in(person, entry.id, pb.ENTRY_STATE_SCORED, again.revision)
    assert (await world.settled(pool)).pool.state == pb.POOL_STATE_PAID
    assert await world.balance(person) == 100


async def test_a_herd_that_is_down_at_the_end_extends_the_grace_to_seven_days(
    world: World,
) -> None:
    pool = await world.pool(await world.funder(), Duration="P1D", Grace="PT0S")
    person = world.person()
    digest = world.dataset.add_model(1)
    entry = await world.join(pool, digest, person)
    await world.entry_in(person, entry.id, pb.ENTRY_STATE_QUEUED)
    await world.dataset.set_score(
        digest,
        dataset_pb2.RUN_STATE_RUNNING,
        done=5,
        reason="No worker for it.",
        reason_code="NO_WORKER",
    )
    waiting = await world.entry_in(person, entry.id, pb.ENTRY_STATE_RUNNING)
    assert (waiting.reason, waiting.reason_code) == ("No worker for it.", "NO_WORKER")
    world.clock.advance(6 * DAY)
    (closing,) = await world.allocate(pool)
    assert closing.state == pb.POOL_STATE_CLOSING
    await world.dataset.set_score(digest, dataset_pb2.RUN_STATE_RUNNING, done=6)
    # The herd is back, and what it left undone is still waited for.
    (closing,) = await world.allocate(pool)
    assert closing.state == pb.POOL_STATE_CLOSING
    await world.dataset.complete(digest, 7)
    assert (await world.settled(pool)).pool.state == pb.POOL_STATE_PAID
    assert await world.balance(person) == 100


async def test_a_herd_that_is_busy_at_the_end_gets_the_grace_and_no_longer(world: World) -> None:
    pool = await world.pool(await world.funder(), Duration="P1D", Grace="PT6H")
    person = world.person()
    digest = world.dataset.add_model(1)
    entry = await world.join(pool, digest, person)
    await world.entry_in(person, entry.id, pb.ENTRY_STATE_QUEUED)
    await world.dataset.set_score(
        digest, dataset_pb2.RUN_STATE_RUNNING, done=5, reason_code="QUEUE_FULL"
    )
    await world.entry_in(person, entry.id, pb.ENTRY_STATE_RUNNING)
    world.clock.advance(DAY + timedelta(hours=7))
    (ended,) = await world.allocate(pool)
    assert ended.state == pb.POOL_STATE_RETURNED


async def test_a_failure_whose_fault_nobody_knows_holds_a_pool_for_its_grace_and_no_longer(
    world: World,
) -> None:
    pool = await world.pool(await world.funder(), Duration="P1D", Grace="PT6H")
    person = world.person()
    digest = world.dataset.add_model(1)
    world.dataset.refusals[digest] = FailedPrecondition(
        reasons.ERROR_REASON_DOCUMENT_SET_ENTERED, "A reason that no run has."
    )
    entry = await world.join(pool, digest, person)
    await world.entry_in(person, entry.id, pb.ENTRY_STATE_FAILED)
    end = (await world.show(pool)).pool.end_time.ToDatetime(UTC)
    world.clock.advance(end - world.clock.now())
    (closing,) = await world.allocate(pool)
    assert closing.state == pb.POOL_STATE_CLOSING
    world.clock.advance(timedelta(hours=6))
    (ended,) = await world.allocate(pool)
    assert ended.state == pb.POOL_STATE_RETURNED
    public = (await world.pools(world.person()).GetEntry(pb.GetEntryRequest(id=entry.id))).entry
    assert (public.reason_code, public.HasField("retry_time")) == ("POOL_CLOSED", False)


async def test_a_dataset_service_out_of_reach_at_the_end_is_waited_for(world: World) -> None:
    pool = await world.pool(await world.funder(), Duration="P1D", Grace="PT0S")
    person = world.person()
    digest = world.dataset.add_model(1)
    entry = await world.join(pool, digest, person)
    await world.entry_in(person, entry.id, pb.ENTRY_STATE_QUEUED)
    world.dataset.set_reachable(False)
    world.clock.advance(2 * DAY)
    (closing,) = await world.allocate(pool)
    assert closing.state == pb.POOL_STATE_CLOSING
    world.clock.advance(7 * DAY)
    (ended,) = await world.allocate(pool)
    assert ended.state == pb.POOL_STATE_RETURNED

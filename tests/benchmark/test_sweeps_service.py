"""The service's own sweeps, by its clock: snapshots, allocation, retries; late, twice, replicas."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from evalpool.dataset.v1 import dataset_pb2
from evalpool_benchmark.entry import FIRST_PAUSE
from evalpool_runtime.testing import ServiceUnderTest
from tests.benchmark.world import World, running_world
from tests.waiting import until

DAY = timedelta(days=1)
FOLLOW = timedelta(hours=1)


async def swept(*services: ServiceUnderTest) -> None:
    """Wait for the sweep over leaderboards that one of the replicas does at the start."""
    name = "evalpool_benchmark_sweep_timestamp_seconds"

    async def times() -> list[float | None]:
        metrics = [service.running.runtime.metrics for service in services]
        return [each.get_sample_value(name, {"name": "leaderboards"}) for each in metrics]

    await until(times, any)


async def snapshot(world: World, pool: str, revision: int) -> pb.Leaderboard:
    """A pool's newest snapshot, once there is this one."""
    stub = world.pools(world.person())

    async def newest() -> pb.Leaderboard:
        return (await stub.GetLeaderboard(pb.GetLeaderboardRequest(pool=pool))).leaderboard

    return await until(newest, lambda board: board.revision >= revision)


async def test_a_running_pools_leaderboard_is_kept_every_24_hours(world: World) -> None:
    await swept(world.benchmark)
    pool = await world.pool(await world.funder())
    await world.scored_entries(pool, [4])
    for revision in (1, 2):
        world.clock.advance(DAY)
        board = await snapshot(world, pool, revision)
        assert (board.revision, board.final) == (revision, False)
        assert [row.correct for row in board.rows] == [4]


async def test_a_snapshot_that_was_missed_for_days_is_taken_once(world: World) -> None:
    await swept(world.benchmark)
    pool = await world.pool(await world.funder())
    world.clock.advance(DAY)
    await snapshot(world, pool, 1)
    await world.stop_benchmark()
    world.clock.advance(5 * DAY)
    await world.start_benchmark()
    late = await snapshot(world, pool, 2)
    world.clock.advance(DAY)
    next_one = await snapshot(world, pool, 3)
    assert (late.revision, next_one.revision) == (2, 3)


async def test_replicas_keep_one_snapshot_a_day_between_them(
    tmp_path: Path, postgresql_url: str
) -> None:
    async with running_world(tmp_path, postgresql_url) as world, world.replica() as replica:
        await swept(world.benchmark, replica)
        pool = await world.pool(await world.funder())
        for day in range(1, 4):
            world.clock.advance(DAY)
            board = await snapshot(world, pool, day)
            assert board.revision == day


async def test_pools_whose_end_has_come_are_allocated_every_24_hours(world: World) -> None:
    funder = await world.funder()
    pool = await world.pool(funder, Duration="P1D")
    (winner,) = await world.scored_entries(pool, [5])
    # The service's timer counts the machine's seconds; by its own clock the sweep comes first.
    world.clock.advance(DAY)
    assert (await world.settled(pool)).pool.state == pb.POOL_STATE_PAID
    assert await world.balance(winner) == 100


async def test_replicas_allocate_what_has_ended_once(tmp_path: Path, postgresql_url: str) -> None:
    async with running_world(tmp_path, postgresql_url) as world, world.replica():
        funder = await world.funder()
        pools = [await world.pool(funder, 100, Duration="P1D") for _ in range(3)]
        world.clock.advance(5 * DAY)
        for pool in pools:
            assert (await world.settled(pool)).pool.state == pb.POOL_STATE_RETURNED
        assert await world.balance(funder) == 1_000
        assert await world.own_balance() == 0


async def test_replicas_try_a_failed_entry_again_once_its_pause_is_over_however_late(
    tmp_path: Path, postgresql_url: str
) -> None:
    async with running_world(tmp_path, postgresql_url) as world, world.replica():
        pool = await world.pool(await world.funder())
        person = world.person()
        digest = world.dataset.add_model(1)
        entry = await world.join(pool, digest, person)
        await world.entry_in(person, entry.id, pb.ENTRY_STATE_QUEUED)
        await world.dataset.set_score(
            digest, dataset_pb2.RUN_STATE_FAILED, done=5, reason_code="EVALUATION_FAILED"
        )
        failed = await world.entry_in(person, entry.id, pb.ENTRY_STATE_FAILED)
        world.clock.advance(100 * FIRST_PAUSE)
        again = await world.entry_in(person, entry.id, pb.ENTRY_STATE_QUEUED, failed.revision)
        # The replica whose lease has just lapsed may still ask as well: with the same request.
        asked = dict.fromkeys(each.request_id for each in world.dataset.benchmarked)
        assert list(asked) == [entry.id, f"{entry.id}:retry:1"]
        await world.dataset.complete(digest, 7)
        scored = await world.entry_in(person, entry.id, pb.ENTRY_STATE_SCORED, again.revision)
        assert (scored.correct, scored.run) == (7, again.run)


async def test_a_queued_entrys_place_is_asked_for_by_the_sweep_over_open_entries(
    world: World,
) -> None:
    pool = await world.pool(await world.funder())
    person = world.person()
    digest = world.dataset.add_model(1)
    entry = await world.join(pool, digest, person)
    queued = await world.entry_in(person, entry.id, pb.ENTRY_STATE_QUEUED)
    world.dataset.move_in_queue(digest, 12)
    world.clock.advance(FOLLOW)
    moved = await world.entry_in(person, entry.id, pb.ENTRY_STATE_QUEUED, queued.revision)
    assert (queued.queue_position, moved.queue_position) == (0, 12)


async def test_sweeps_done_twice_at_once_change_nothing_twice(world: World) -> None:
    funder = await world.funder()
    pool = await world.pool(funder, Duration="P1D")
    people = await world.scored_entries(pool, [7, 3])
    stub = world.pools(world.person())
    request = pb.UpdateLeaderboardRequest(pool=pool)
    taken = await asyncio.gather(*(stub.UpdateLeaderboard(request) for _ in range(4)))
    assert {each.leaderboard.revision for each in taken} == {1}
    world.clock.advance(DAY)
    await asyncio.gather(*(world.allocate() for _ in range(4)))
    await world.settled(pool)
    assert [await world.balance(person) for person in people] == [67, 33]
    assert await world.own_balance() == 0

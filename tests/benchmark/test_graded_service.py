"""Pools whose answers a judge grades: points, of full marks for each question."""

from __future__ import annotations

from datetime import timedelta

import pytest

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from evalpool.dataset.v1 import dataset_pb2
from tests.benchmark.world import DATASET_OWNER, ClockedIdentity, World

GRADED = "open-questions"


async def graded_pool(world: World) -> str:
    world.dataset.add_dataset(GRADED, DATASET_OWNER.address, graded=True)
    funder = await world.funder()
    return await world.pool(funder, dataset=GRADED, Duration="P1D", Minimum_Score="1/3")


async def enter(
    world: World, pool: str, number: int, *, correct: int, points: int
) -> tuple[ClockedIdentity, pb.Entry]:
    participant = world.person()
    digest = world.dataset.add_model(number)
    entry = await world.join(pool, digest, participant)
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
    await world.dataset.complete(digest, correct, points)
    return participant, await world.entry_in(participant, entry.id, pb.ENTRY_STATE_SCORED)


async def test_grades_rank_and_pay_as_their_sum_says(world: World) -> None:
    pool = await graded_pool(world)
    extreme, _ = await enter(world, pool, 1, correct=5, points=50)
    even, entry = await enter(world, pool, 2, correct=0, points=60)
    poor, _ = await enter(world, pool, 3, correct=0, points=33)
    assert (entry.points, entry.full_marks, entry.correct, entry.done) == (60, 10, 0, 10)
    stub = world.pools(world.person())

    live = (await stub.GetLeaderboard(pb.GetLeaderboardRequest(pool=pool, live=True))).leaderboard
    kept = (await stub.UpdateLeaderboard(pb.UpdateLeaderboardRequest(pool=pool))).leaderboard
    newest = (await stub.GetLeaderboard(pb.GetLeaderboardRequest(pool=pool))).leaderboard

    assert newest == kept
    assert list(live.rows) == list(kept.rows)
    assert [(row.participant, row.points, row.full_marks, row.score) for row in kept.rows] == [
        (even.address, 60, 10, 0.6),
        (extreme.address, 50, 10, 0.5),
        (poor.address, 33, 10, 0.33),
    ]
    first = kept.rows[0]
    assert (first.score_low, first.score_high) == pytest.approx((0.312674, 0.831820), abs=1e-5)
    assert "minimum of 1/3" in kept.rows[2].ineligible_reason
    world.clock.advance(timedelta(days=1))
    await world.settled(pool)
    paid = [await world.balance(each) for each in (even, extreme, poor)]
    assert paid == [67, 33, 0]


async def test_while_answers_are_graded_the_standing_has_the_points_so_far(world: World) -> None:
    pool = await graded_pool(world)
    participant = world.person()
    digest = world.dataset.add_model(1)
    entry = await world.join(pool, digest, participant)
    assert (entry.points, entry.full_marks) == (0, 0)
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
    await world.dataset.set_score(
        digest, dataset_pb2.RUN_STATE_RUNNING, correct=1, points=25, done=4
    )
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_RUNNING)

    request = pb.GetLeaderboardRequest(pool=pool, live=True)
    (row,) = (await world.pools(participant).GetLeaderboard(request)).leaderboard.rows

    assert (row.points, row.full_marks, row.done) == (25, 10, 4)
    assert (row.score, row.progress) == (0.625, 0.4)


async def test_a_dataset_service_that_tells_no_points_gives_one_for_each_right_answer(
    world: World,
) -> None:
    world.dataset.tells_points = False
    pool = await world.pool(await world.funder())
    (participant,) = await world.scored_entries(pool, [7])

    request = pb.GetLeaderboardRequest(pool=pool, live=True)
    (row,) = (await world.pools(participant).GetLeaderboard(request)).leaderboard.rows

    assert (row.correct, row.points, row.full_marks, row.score) == (7, 7, 1, 0.7)

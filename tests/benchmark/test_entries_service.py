"""Entries: joining, following the run, entering again, withdrawing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode
from sqlalchemy import create_engine, text

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from evalpool.dataset.v1 import dataset_pb2
from tests.benchmark.world import DATASET, DATASET_OWNER, World
from tests.refusals import refusal
from tests.waiting import until

DAY = timedelta(days=1)


async def test_an_entry_is_seen_through_all_its_states(world: World) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    digest = world.dataset.add_model(1)
    entry = await world.join(pool, digest, participant)
    assert (entry.pool, entry.subject, entry.subject_name) == (pool, digest, "model-1")
    assert (entry.participant, entry.total) == (participant.address, 10)
    seen = []
    stream = world.pools(world.person()).WatchEntry(pb.WatchEntryRequest(id=entry.id))
    async for message in stream:
        now = message.entry
        seen.append((now.state, now.done, now.queue_position))
        if now.state == pb.ENTRY_STATE_QUEUED and now.queue_position == 0:
            await world.dataset.set_score(digest, dataset_pb2.RUN_STATE_QUEUED, queue_position=7)
        elif now.state == pb.ENTRY_STATE_QUEUED:
            await world.dataset.set_score(digest, dataset_pb2.RUN_STATE_RUNNING, correct=2, done=4)
        elif now.state == pb.ENTRY_STATE_RUNNING:
            await world.dataset.complete(digest, 6)
        last = now
    assert seen[-1] == (pb.ENTRY_STATE_SCORED, 10, 0)
    assert (pb.ENTRY_STATE_QUEUED, 0, 7) in seen
    assert (pb.ENTRY_STATE_RUNNING, 4, 0) in seen
    assert (last.correct, last.total) == (6, 10)
    assert last.HasField("end_time")
    revisions = [entry.revision, last.revision]
    assert revisions[0] < revisions[1]


async def test_a_watch_goes_on_from_a_revision_and_ends_at_a_final_state(world: World) -> None:
    pool = await world.pool(await world.funder())
    (participant,) = await world.scored_entries(pool, [5])
    stub = world.pools(participant)
    (row,) = (await stub.GetLeaderboard(pb.GetLeaderboardRequest(pool=pool))).leaderboard.rows
    whole = [each async for each in stub.WatchEntry(pb.WatchEntryRequest(id=row.entry))]
    assert [each.entry.state for each in whole] == [pb.ENTRY_STATE_SCORED]
    rest = stub.WatchEntry(
        pb.WatchEntryRequest(id=row.entry, after_revision=whole[0].entry.revision)
    )
    assert [each async for each in rest] == []


async def test_a_watch_ends_with_unavailable_when_the_service_stops(world: World) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    entry = await world.join(pool, world.dataset.add_model(1), participant)
    stream = world.pools(participant).WatchEntry(pb.WatchEntryRequest(id=entry.id))
    async for message in stream:
        if message.entry.state == pb.ENTRY_STATE_QUEUED:
            break
    await world.stop_benchmark()
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        async for _ in stream:
            pass
    assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
    await world.start_benchmark()


async def test_the_dataset_service_is_told_of_the_pools_version_and_participant(
    world: World,
) -> None:
    pool = await world.pool(await world.funder(), Evaluator="letter")
    pinned = world.dataset.datasets[DATASET].version
    world.dataset.add_dataset(DATASET, DATASET_OWNER.address, questions=99)
    participant = world.person()
    digest = world.dataset.add_model(1)
    entry = await world.join(pool, digest, participant)
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
    assert world.dataset.benchmarked == [
        dataset_pb2.BenchmarkRequest(
            dataset=DATASET,
            version=pinned,
            subject=digest,
            evaluator=dataset_pb2.EVALUATOR_LETTER,
            participant=participant.address,
            request_id=entry.id,
        )
    ]


async def test_the_same_model_in_another_pool_follows_the_same_run(world: World) -> None:
    funder = await world.funder()
    first, second = await world.pool(funder), await world.pool(funder)
    await world.scored_entries(first, [7])
    participant = world.person()
    entry = await world.join(second, f"{1:064x}", participant)
    scored = await world.entry_in(participant, entry.id, pb.ENTRY_STATE_SCORED)
    assert (scored.correct, scored.run) == (7, "run-1")


async def test_the_same_request_is_answered_with_the_same_entry(world: World) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    digest = world.dataset.add_model(1)
    first = await world.join(pool, digest, participant, "mine")
    again = await world.join(pool, digest, participant, "mine")
    assert again.id == first.id


async def test_a_join_while_the_dataset_service_is_out_of_reach_can_be_repeated(
    world: World,
) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    digest = world.dataset.add_model(1)
    world.dataset.set_reachable(False)
    await refusal(
        world.join(pool, digest, participant, "mine"), StatusCode.UNAVAILABLE, "UNAVAILABLE"
    )
    world.dataset.set_reachable(True)
    assert (await world.join(pool, digest, participant, "mine")).state != 0


async def test_entries_are_carried_on_after_a_restart_at_any_point(world: World) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    digests = [world.dataset.add_model(number) for number in (1, 2)]
    followed = await world.join(pool, digests[0], participant)
    await world.entry_in(participant, followed.id, pb.ENTRY_STATE_QUEUED)
    other = await world.join(pool, digests[1], participant)
    await world.entry_in(participant, other.id, pb.ENTRY_STATE_QUEUED)
    await world.stop_benchmark()
    # What happens meanwhile is not lost.
    await world.dataset.complete(digests[0], 8)
    await world.start_benchmark()
    scored = await world.entry_in(participant, followed.id, pb.ENTRY_STATE_SCORED)
    assert scored.correct == 8
    await world.dataset.complete(digests[1], 5)
    await world.entry_in(participant, other.id, pb.ENTRY_STATE_SCORED)
    assert [each.request_id for each in world.dataset.benchmarked] == [followed.id, other.id]


async def test_a_run_that_ends_before_its_entry_is_known_to_follow_it_is_not_missed(
    world: World, tmp_path: Path
) -> None:
    pool = await world.pool(await world.funder())
    engine = create_engine(f"sqlite:///{tmp_path / 'benchmark' / 'benchmark.db'}")

    async def scores_read() -> int:
        with engine.connect() as connection:
            query = text("SELECT value FROM cursors WHERE name = 'scores'")
            return int(connection.scalar(query) or 0)

    async def end_the_run(request: dataset_pb2.BenchmarkRequest) -> None:
        # The service reads and passes over the run's end; then the old answer arrives.
        await world.dataset.complete(request.subject, 4)
        await until(scores_read, lambda cursor: cursor >= 2)

    world.dataset.before_answering = end_the_run
    participant = world.person()
    entry = await world.join(pool, world.dataset.add_model(1), participant)
    scored = await world.entry_in(participant, entry.id, pb.ENTRY_STATE_SCORED)
    assert scored.correct == 4
    engine.dispose()


async def test_withdrawing_and_disqualifying(world: World) -> None:
    pool = await world.pool(await world.funder())
    _, second = await world.scored_entries(pool, [9, 5])
    board = (
        await world.pools(second).GetLeaderboard(pb.GetLeaderboardRequest(pool=pool))
    ).leaderboard
    best, other = (row.entry for row in board.rows)
    gone = (await world.pools(second).WithdrawEntry(pb.WithdrawEntryRequest(id=other))).entry
    assert gone.state == pb.ENTRY_STATE_WITHDRAWN
    request = pb.DisqualifyEntryRequest(id=best, reason="It is a copy.")
    out = (await world.pools(world.operator).DisqualifyEntry(request)).entry
    assert (out.state, out.reason) == (pb.ENTRY_STATE_DISQUALIFIED, "It is a copy.")
    public = (await world.pools(second).GetEntry(pb.GetEntryRequest(id=best))).entry
    assert public.reason == "It is a copy."


async def test_who_the_service_is_may_be_asked_without_a_token(world: World) -> None:
    stub = world.pools(None)
    info = await stub.GetInfo(pb.GetInfoRequest())
    assert info.info.service == "benchmark"
    assert info.info.address == world.benchmark.address
    assert "ArithmeticDecrease" in info.allocations
    assert list(info.tie_rules) == ["earliest", "split"]
    assert info.default_duration.ToTimedelta() == 30 * DAY
    assert info.default_grace.ToTimedelta() == DAY


async def test_a_repeat_under_the_same_token_gets_the_first_answer(world: World) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    digest = world.dataset.add_model(1)
    token = participant.token(world.benchmark.address)
    metadata = (("authorization", f"Bearer {token}"),)
    stub = world.pools(None)
    request = pb.JoinPoolRequest(pool=pool, subject=digest, request_id="mine")
    first = await stub.JoinPool(request, metadata=metadata)
    await world.entry_in(participant, first.entry.id, pb.ENTRY_STATE_QUEUED)
    assert await stub.JoinPool(request, metadata=metadata) == first
    other = pb.JoinPoolRequest(pool=pool, subject=digest, request_id="yours")
    await refusal(
        stub.JoinPool(other, metadata=metadata),
        StatusCode.ALREADY_EXISTS,
        "TOKEN_REPLAYED",
        "authorization",
    )

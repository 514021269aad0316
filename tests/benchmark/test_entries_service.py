"""Entries: joining, following the run, failing, entering again."""

from __future__ import annotations

from datetime import UTC, timedelta
from pathlib import Path

import grpc
import pytest
from sqlalchemy import create_engine, text

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from evalpool.dataset.v1 import dataset_pb2
from evalpool.errors import CallError
from evalpool_benchmark.entry import FIRST_PAUSE
from evalpool_runtime.errors import FailedPrecondition, reasons
from tests.benchmark.world import DATASET, DATASET_OWNER, World, until

DAY = timedelta(days=1)


async def refusal_of(call: object) -> CallError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call  # type: ignore[misc]
    error = CallError.of(refused.value)
    assert error.message
    return error


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
    other = await refusal_of(world.join(pool, world.dataset.add_model(2), participant, "mine"))
    assert (other.code, other.reason) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
    )
    twice = await refusal_of(world.join(pool, digest, participant, "another"))
    assert (twice.code, twice.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_ENTERED")


async def test_a_join_that_cannot_be_is_refused_and_changes_nothing(world: World) -> None:
    pool = await world.pool(await world.funder(), Max_Entries_Per_Day="1")
    known = world.dataset.add_model(1)
    somebodys = world.dataset.add_model(2, owner=world.person().address)
    participant = world.person()
    for call, code, reason in (
        (world.join("A" * 43, known, participant), "NOT_FOUND", "POOL_NOT_FOUND"),
        (world.join(pool, "f" * 64, participant), "NOT_FOUND", "MODEL_NOT_FOUND"),
        (
            world.join(pool, somebodys, participant),
            "PERMISSION_DENIED",
            "SUBJECT_NOT_OWNED",
        ),
    ):
        error = await refusal_of(call)
        assert (error.code.name, error.reason) == (code, reason)
    await world.join(pool, known, participant)
    over = await refusal_of(world.join(pool, world.dataset.add_model(3), participant))
    assert (over.code.name, over.reason) == ("RESOURCE_EXHAUSTED", "ENTRY_LIMIT")
    assert over.retry_after is not None
    world.clock.advance(31 * DAY)
    late = await refusal_of(world.join(pool, world.dataset.add_model(4), world.person()))
    assert (late.code.name, late.reason) == ("FAILED_PRECONDITION", "POOL_CLOSED")
    assert (await world.show(pool)).pool.entry_count == 1


async def test_every_field_that_breaks_its_rule_is_named_at_once(world: World) -> None:
    stub = world.pools(world.person())
    error = await refusal_of(
        stub.JoinPool(pb.JoinPoolRequest(pool="x", subject="G" * 64, request_id="a b"))
    )
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert [each.field for each in error.violations] == ["pool", "subject", "request_id"]
    for call in (
        stub.GetPool(pb.GetPoolRequest(id="")),
        stub.GetEntry(pb.GetEntryRequest(id="?")),
        stub.GetFunding(pb.GetFundingRequest(transfer="1")),
        stub.ListPools(pb.ListPoolsRequest(page_size=-1)),
        stub.ListPools(pb.ListPoolsRequest(page_size=1_001)),
        stub.ListPools(pb.ListPoolsRequest(dataset="No Dataset")),
        stub.ListPools(pb.ListPoolsRequest(state=99)),  # type: ignore[arg-type]
        stub.WithdrawEntry(pb.WithdrawEntryRequest(id="x")),
        stub.UpdateLeaderboard(pb.UpdateLeaderboardRequest(pool="x")),
        stub.GetLeaderboard(pb.GetLeaderboardRequest(pool="x")),
        stub.AllocateRewards(pb.AllocateRewardsRequest(pool="x")),
    ):
        error = await refusal_of(call)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert len(error.violations) == 1


async def test_what_does_not_exist_is_not_found(world: World) -> None:
    stub = world.pools(world.person())
    missing = "A" * 43
    for call, reason in (
        (stub.GetPool(pb.GetPoolRequest(id=missing)), "POOL_NOT_FOUND"),
        (stub.GetEntry(pb.GetEntryRequest(id=missing)), "ENTRY_NOT_FOUND"),
        (stub.WithdrawEntry(pb.WithdrawEntryRequest(id=missing)), "ENTRY_NOT_FOUND"),
        (stub.GetLeaderboard(pb.GetLeaderboardRequest(pool=missing)), "POOL_NOT_FOUND"),
        (stub.UpdateLeaderboard(pb.UpdateLeaderboardRequest(pool=missing)), "POOL_NOT_FOUND"),
        (stub.AllocateRewards(pb.AllocateRewardsRequest(pool=missing)), "POOL_NOT_FOUND"),
    ):
        error = await refusal_of(call)
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, reason)
    for stream, reason in (
        (stub.WatchEntry(pb.WatchEntryRequest(id=missing)), "ENTRY_NOT_FOUND"),
        (stub.WatchLeaderboard(pb.WatchLeaderboardRequest(pool=missing)), "POOL_NOT_FOUND"),
    ):
        error = await refusal_of(stream.read())
        assert error.reason == reason


async def test_a_join_while_the_dataset_service_is_out_of_reach_can_be_repeated(
    world: World,
) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    digest = world.dataset.add_model(1)
    world.dataset.set_reachable(False)
    error = await refusal_of(world.join(pool, digest, participant, "mine"))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    world.dataset.set_reachable(True)
    assert (await world.join(pool, digest, participant, "mine")).state != 0


async def test_what_shows_later_fails_the_entry_and_it_can_be_entered_again(
    world: World,
) -> None:
    pool = await world.pool(await world.funder(), Max_Entries_Per_Day="1")
    participant = world.person()
    digest = world.dataset.add_model(1)
    entry = await world.join(pool, digest, participant)
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
    await world.dataset.set_score(
        digest,
        dataset_pb2.RUN_STATE_FAILED,
        done=0,
        reason="The file is no GGUF.",
        reason_code="INVALID_GGUF",
    )
    failed = await world.entry_in(participant, entry.id, pb.ENTRY_STATE_FAILED)
    assert (failed.reason, failed.reason_code) == ("The file is no GGUF.", "INVALID_GGUF")
    stranger = (await world.pools(world.person()).GetEntry(pb.GetEntryRequest(id=entry.id))).entry
    assert (stranger.reason, stranger.reason_code) == ("", "INVALID_GGUF")
    operator = (await world.pools(world.operator).GetEntry(pb.GetEntryRequest(id=entry.id))).entry
    assert operator.reason == failed.reason
    again = await world.join(pool, digest, participant)
    assert again.id == entry.id
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
    await world.dataset.complete(digest, 9)
    scored = await world.entry_in(participant, entry.id, pb.ENTRY_STATE_SCORED)
    assert scored.correct == 9
    assert [each.request_id for each in world.dataset.benchmarked] == [entry.id, f"{entry.id}:2"]


async def test_a_refusal_by_the_dataset_service_fails_the_entry(world: World) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    digest = world.dataset.add_model(1)
    world.dataset.refusals[digest] = FailedPrecondition(
        reasons.ERROR_REASON_EVALUATOR_MISMATCH, "The evaluator cannot be used here."
    )
    entry = await world.join(pool, digest, participant)
    failed = await world.entry_in(participant, entry.id, pb.ENTRY_STATE_FAILED)
    assert (failed.reason, failed.reason_code) == (
        "The evaluator cannot be used here.",
        "EVALUATOR_MISMATCH",
    )


async def test_a_watch_tells_of_a_failure_that_may_mend_and_goes_on_to_the_score(
    world: World,
) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    digest = world.dataset.add_model(1)
    entry = await world.join(pool, digest, participant)
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
    await world.dataset.set_score(
        digest,
        dataset_pb2.RUN_STATE_FAILED,
        done=4,
        reason="A worker was lost.",
        reason_code="EVALUATION_FAILED",
    )
    seen: list[pb.Entry] = []
    async for message in world.pools(participant).WatchEntry(pb.WatchEntryRequest(id=entry.id)):
        seen.append(message.entry)
        if message.entry.state == pb.ENTRY_STATE_FAILED:
            await world.dataset.complete(digest, 3)
    (failed,) = (each for each in seen if each.state == pb.ENTRY_STATE_FAILED)
    assert (failed.reason, failed.reason_code) == ("A worker was lost.", "EVALUATION_FAILED")
    assert failed.retry_time.ToDatetime(UTC) == world.clock.now() + FIRST_PAUSE
    assert not failed.HasField("end_time")
    last = seen[-1]
    assert (last.state, last.correct, last.reason_code) == (pb.ENTRY_STATE_SCORED, 3, "")
    assert not last.HasField("retry_time")


async def test_a_watch_ends_at_a_failure_that_is_the_subjects(world: World) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    digest = world.dataset.add_model(1)
    entry = await world.join(pool, digest, participant)
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
    await world.dataset.set_score(
        digest, dataset_pb2.RUN_STATE_FAILED, done=0, reason_code="MODEL_LOAD_FAILED"
    )
    stream = world.pools(participant).WatchEntry(pb.WatchEntryRequest(id=entry.id))
    last = [message.entry async for message in stream][-1]
    assert (last.state, last.reason_code) == (pb.ENTRY_STATE_FAILED, "MODEL_LOAD_FAILED")
    assert last.HasField("end_time")
    assert not last.HasField("retry_time")


async def test_a_watch_of_what_is_never_mended_ends_when_the_pools_result_is_frozen(
    world: World,
) -> None:
    pool = await world.pool(await world.funder(), Duration="P1D")
    participant = world.person()
    digest = world.dataset.add_model(1)
    world.dataset.refusals[digest] = FailedPrecondition(
        reasons.ERROR_REASON_NO_WORKER, "No worker takes it."
    )
    entry = await world.join(pool, digest, participant)
    seen: list[pb.Entry] = []
    async for message in world.pools(participant).WatchEntry(pb.WatchEntryRequest(id=entry.id)):
        seen.append(message.entry)
        if message.entry.retry_time.ToDatetime(UTC) > world.clock.now():
            world.clock.advance(8 * DAY)
            await world.allocate(pool)
    assert seen[-1].state == pb.ENTRY_STATE_FAILED
    assert (seen[-1].reason_code, seen[-1].HasField("retry_time")) == ("POOL_CLOSED", False)


async def test_a_submission_that_the_machinery_refused_is_tried_again_after_its_pause(
    world: World,
) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    digest = world.dataset.add_model(1)
    world.dataset.refusals[digest] = FailedPrecondition(
        reasons.ERROR_REASON_NO_WORKER, "No worker takes it."
    )
    entry = await world.join(pool, digest, participant)
    failed = await world.entry_in(participant, entry.id, pb.ENTRY_STATE_FAILED)
    assert (failed.reason_code, failed.run) == ("NO_WORKER", "")
    world.clock.advance(FIRST_PAUSE)
    twice = await world.entry_in(
        participant, entry.id, pb.ENTRY_STATE_FAILED, after=failed.revision
    )
    assert twice.retry_time.ToDatetime(UTC) == world.clock.now() + 2 * FIRST_PAUSE
    del world.dataset.refusals[digest]
    world.clock.advance(2 * FIRST_PAUSE)
    again = await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED, after=twice.revision)
    assert again.run == "run-1"
    assert [each.request_id for each in world.dataset.benchmarked] == [
        entry.id,
        f"{entry.id}:retry:1",
        f"{entry.id}:retry:2",
    ]


async def test_a_pause_outlives_a_restart(world: World) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    digest = world.dataset.add_model(1)
    entry = await world.join(pool, digest, participant)
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
    await world.dataset.set_score(
        digest, dataset_pb2.RUN_STATE_FAILED, done=4, reason_code="MODEL_FETCH_FAILED"
    )
    failed = await world.entry_in(participant, entry.id, pb.ENTRY_STATE_FAILED)
    await world.restart_benchmark()
    again = (await world.pools(participant).GetEntry(pb.GetEntryRequest(id=entry.id))).entry
    assert again == failed
    world.clock.advance(FIRST_PAUSE)
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED, after=failed.revision)
    assert world.dataset.benchmarked[-1].request_id == f"{entry.id}:retry:1"


async def test_an_unfunded_run_waits_and_says_so(world: World) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    digest = world.dataset.add_model(1)
    entry = await world.join(pool, digest, participant)
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
    await world.dataset.set_score(
        digest,
        dataset_pb2.RUN_STATE_UNFUNDED,
        done=0,
        reason="The hold was refused.",
        reason_code="HOLD_REFUSED",
    )
    stub = world.pools(participant)

    async def get() -> pb.Entry:
        return (await stub.GetEntry(pb.GetEntryRequest(id=entry.id))).entry

    waiting = await until(get, lambda found: found.reason_code == "HOLD_REFUSED")
    assert (waiting.state, waiting.reason) == (pb.ENTRY_STATE_QUEUED, "The hold was refused.")
    assert waiting.HasField("retry_time")
    # The dataset service takes an unfunded run up again when it is asked for it again.
    world.clock.advance(FIRST_PAUSE)
    funded = await world.entry_in(
        participant, entry.id, pb.ENTRY_STATE_QUEUED, after=waiting.revision
    )
    assert (funded.reason_code, funded.HasField("retry_time")) == ("", False)


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
    first, second = await world.scored_entries(pool, [9, 5])
    board = (
        await world.pools(first).GetLeaderboard(pb.GetLeaderboardRequest(pool=pool))
    ).leaderboard
    best, other = (row.entry for row in board.rows)
    error = await refusal_of(world.pools(second).WithdrawEntry(pb.WithdrawEntryRequest(id=best)))
    assert (error.code.name, error.reason) == ("PERMISSION_DENIED", "NOT_ALLOWED")
    gone = (await world.pools(second).WithdrawEntry(pb.WithdrawEntryRequest(id=other))).entry
    assert gone.state == pb.ENTRY_STATE_WITHDRAWN
    request = pb.DisqualifyEntryRequest(id=best, reason="It is a copy.")
    error = await refusal_of(world.pools(first).DisqualifyEntry(request))
    assert (error.code.name, error.reason) == ("PERMISSION_DENIED", "NOT_ALLOWED")
    for bad in ("", "x" * 501):
        error = await refusal_of(
            world.pools(world.operator).DisqualifyEntry(
                pb.DisqualifyEntryRequest(id=best, reason=bad)
            )
        )
        assert error.reason == "INVALID_FIELD"
    out = (await world.pools(world.operator).DisqualifyEntry(request)).entry
    assert (out.state, out.reason) == (pb.ENTRY_STATE_DISQUALIFIED, "It is a copy.")
    public = (await world.pools(second).GetEntry(pb.GetEntryRequest(id=best))).entry
    assert public.reason == "It is a copy."


async def test_calls_without_a_token_are_refused_but_for_get_info(world: World) -> None:
    stub = world.pools(None)
    info = await stub.GetInfo(pb.GetInfoRequest())
    assert info.info.service == "benchmark"
    assert info.info.address == world.benchmark.address
    assert "ArithmeticDecrease" in info.allocations
    assert list(info.tie_rules) == ["earliest", "split"]
    assert info.default_duration.ToTimedelta() == 30 * DAY
    assert info.default_grace.ToTimedelta() == DAY
    error = await refusal_of(stub.ListPools(pb.ListPoolsRequest()))
    assert (error.code.name, error.reason) == ("UNAUTHENTICATED", "TOKEN_MISSING")


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
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.JoinPool(other, metadata=metadata)
    assert CallError.of(refused.value).reason == "TOKEN_REPLAYED"

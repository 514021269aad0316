"""Entries that fail: for good, until the next try, or until their pool ends."""

from __future__ import annotations

from datetime import UTC, timedelta

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from evalpool.dataset.v1 import dataset_pb2
from evalpool_benchmark.entry import FIRST_PAUSE
from evalpool_runtime.errors import FailedPrecondition, reasons
from tests.benchmark.world import World
from tests.waiting import until

DAY = timedelta(days=1)


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


async def test_a_dataset_service_that_went_back_to_a_backup_is_followed_from_the_beginning(
    world: World,
) -> None:
    pool = await world.pool(await world.funder())
    people = [world.person(), world.person()]
    digests = [world.dataset.add_model(1), world.dataset.add_model(2)]
    seen = []
    for person, digest in zip(people, digests, strict=True):
        entry = await world.join(pool, digest, person)
        await world.entry_in(person, entry.id, pb.ENTRY_STATE_QUEUED)
        for done in range(1, 4):
            await world.dataset.set_score(digest, dataset_pb2.RUN_STATE_RUNNING, done=done)
        seen.append(await world.entry_in(person, entry.id, pb.ENTRY_STATE_RUNNING))
    # What it still knows has lower cursors than the entries have seen; the other run is gone.
    await world.dataset.restore(without=digests[1])
    again = await world.entry_in(
        people[1], seen[1].id, pb.ENTRY_STATE_QUEUED, after=seen[1].revision
    )
    assert (again.done, again.HasField("retry_time")) == (0, False)
    for person, digest, entry in zip(people, digests, seen, strict=True):
        await world.dataset.complete(digest, 7)
        scored = await world.entry_in(person, entry.id, pb.ENTRY_STATE_SCORED)
        assert scored.correct == 7


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

"""Pools of document sets: who enters what, and how it goes on."""

from __future__ import annotations

from datetime import timedelta

from grpc import StatusCode

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from evalpool.common.v1.subject_kind_pb2 import SUBJECT_KIND_DOCUMENT_SET, SUBJECT_KIND_MODEL
from evalpool.dataset.v1 import dataset_pb2
from tests.benchmark.world import DATASET_OWNER, World
from tests.refusals import refusal

RETRIEVAL = "questions-to-look-up"
UNKNOWN = "f" * 64


async def pool_of_sets(world: World) -> str:
    world.dataset.add_dataset(RETRIEVAL, DATASET_OWNER.address, graded=True, retrieval=True)
    return await world.pool(await world.funder(), dataset=RETRIEVAL, Duration="P1D")


async def test_a_pool_says_what_is_entered_in_it(world: World) -> None:
    of_models = await world.pool(await world.funder())
    of_sets = await pool_of_sets(world)
    assert (await world.show(of_models)).pool.subject_kind == SUBJECT_KIND_MODEL
    assert (await world.show(of_sets)).pool.subject_kind == SUBJECT_KIND_DOCUMENT_SET
    listed = await world.pools(world.person()).ListPools(pb.ListPoolsRequest())
    assert {pool.id: pool.subject_kind for pool in listed.pools} == {
        of_models: SUBJECT_KIND_MODEL,
        of_sets: SUBJECT_KIND_DOCUMENT_SET,
    }


async def test_document_sets_are_entered_ranked_and_paid_like_models(world: World) -> None:
    pool = await pool_of_sets(world)
    participants = [world.person(), world.person()]
    for number, (participant, points) in enumerate(zip(participants, (40, 70), strict=True)):
        digest = world.dataset.add_document_set(number, participant.address)
        entry = await world.join(pool, digest, participant)
        assert (entry.subject, entry.subject_name) == (digest, f"set-{number}")
        await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
        await world.dataset.complete(digest, 0, points)
        await world.entry_in(participant, entry.id, pb.ENTRY_STATE_SCORED)
    asked = world.dataset.benchmarked[0]
    assert (asked.dataset, asked.evaluator) == (RETRIEVAL, dataset_pb2.EVALUATOR_JUDGE)
    assert asked.participant == participants[0].address
    world.clock.advance(timedelta(days=1))
    await world.settled(pool)
    assert [await world.balance(each) for each in participants] == [33, 67]


async def test_the_pinned_version_decides_what_a_pool_takes(world: World) -> None:
    pool = await pool_of_sets(world)
    pinned = world.dataset.datasets[RETRIEVAL].version
    world.dataset.add_dataset(RETRIEVAL, DATASET_OWNER.address, retrieval=True)
    participant = world.person()
    digest = world.dataset.add_document_set(1, participant.address)
    await world.join(pool, digest, participant)
    assert [each.version for each in world.dataset.asked_for_subjects] == [pinned]


async def test_a_model_in_a_pool_of_sets_and_a_set_in_a_pool_of_models_are_refused(
    world: World,
) -> None:
    of_models, of_sets = await world.pool(await world.funder()), await pool_of_sets(world)
    participant = world.person()
    model = world.dataset.add_model(1)
    documents = world.dataset.add_document_set(2, participant.address)
    before = world.everything()
    error = await refusal(
        world.join(of_sets, model, participant),
        StatusCode.NOT_FOUND,
        "DOCUMENT_SET_NOT_FOUND",
        "subject",
    )
    assert "the pool takes document sets" in error.message
    error = await refusal(
        world.join(of_models, documents, participant),
        StatusCode.NOT_FOUND,
        "MODEL_NOT_FOUND",
        "subject",
    )
    assert "the pool takes models" in error.message
    assert world.everything() == before


async def test_a_set_that_is_unknown_somebody_elses_or_not_embedded_yet_is_refused(
    world: World,
) -> None:
    pool = await pool_of_sets(world)
    participant, another = world.person(), world.person()
    somebodys = world.dataset.add_document_set(1, another.address)
    before = world.everything()
    await refusal(
        world.join(pool, UNKNOWN, participant),
        StatusCode.NOT_FOUND,
        "DOCUMENT_SET_NOT_FOUND",
        "subject",
    )
    error = await refusal(
        world.join(pool, somebodys, participant),
        StatusCode.PERMISSION_DENIED,
        "SUBJECT_NOT_OWNED",
        "subject",
    )
    assert "document set" in error.message
    world.dataset.embedding.add(somebodys)
    error = await refusal(
        world.join(pool, somebodys, another, "mine"),
        StatusCode.FAILED_PRECONDITION,
        "DOCUMENT_SET_NOT_READY",
        "subject",
    )
    assert "3 of 9 documents are embedded" in error.message
    assert error.retry_after == 1.0
    assert world.everything() == before
    world.dataset.embedding.clear()
    assert (await world.join(pool, somebodys, another, "mine")).subject == somebodys


async def test_a_dataset_that_the_service_has_lost_for_now_is_no_fault_of_the_participants(
    world: World,
) -> None:
    pool = await world.pool(await world.funder())
    participant = world.person()
    digest = world.dataset.add_model(1)
    lost = dict(world.dataset.datasets)
    world.dataset.datasets.clear()
    await refusal(
        world.join(pool, digest, participant, "mine"), StatusCode.UNAVAILABLE, "UNAVAILABLE"
    )
    world.dataset.datasets.update(lost)
    assert (await world.join(pool, digest, participant, "mine")).subject == digest


async def test_a_set_that_is_deleted_before_its_first_question_ends_the_entry(
    world: World,
) -> None:
    pool = await pool_of_sets(world)
    participant = world.person()
    digest = world.dataset.add_document_set(1, participant.address)
    entry = await world.join(pool, digest, participant)
    await world.entry_in(participant, entry.id, pb.ENTRY_STATE_QUEUED)
    await world.dataset.set_score(
        digest,
        dataset_pb2.RUN_STATE_FAILED,
        reason="The document set was deleted.",
        reason_code="DOCUMENT_SET_NOT_FOUND",
    )
    failed = await world.entry_in(participant, entry.id, pb.ENTRY_STATE_FAILED)
    assert failed.reason_code == "DOCUMENT_SET_NOT_FOUND"
    assert not failed.HasField("retry_time")

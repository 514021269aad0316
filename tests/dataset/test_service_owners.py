"""Owners of the same questions share the work, over real gRPC; each sees what was asked on theirs.

The owner of the first harness dataset is called Ann here, the other one Ben.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from evalpool.dataset.v1 import dataset_pb2
from evalpool.identity import Identity
from tests.dataset.dataset_harness import (
    MODEL,
    OTHER_MODEL,
    DatasetHarness,
    evaluated,
    lines,
    refusal,
    results,
    running_dataset,
    start,
    until,
)
from tests.dataset.router_double import RouterDouble

if TYPE_CHECKING:
    from tests.dataset.dataset_harness import Stub

COMPLETE = dataset_pb2.RUN_STATE_COMPLETE
BEN = Identity.generate()


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DatasetHarness]:
    async with (
        RouterDouble.knowing(MODEL, OTHER_MODEL) as router,
        running_dataset(tmp_path, router) as m,
    ):
        yield m


@pytest.fixture
async def ann(harness: DatasetHarness) -> Stub:
    """Owns "anns"."""
    return await harness.load(lines(4), "anns")


@pytest.fixture
async def ben(harness: DatasetHarness, ann: Stub) -> Stub:
    """Owns "bens", which has the same questions and came later."""
    return await harness.load(lines(4), "bens", by=BEN)


async def told_of(stub: Stub, *runs: str) -> dataset_pb2.Score:
    """The first standing that a watch gives: of the runs, or of all that its caller may see."""
    watch = stub.WatchScores(dataset_pb2.WatchScoresRequest(runs=runs))
    message = await watch.read()
    watch.cancel()
    assert isinstance(message, dataset_pb2.WatchScoresResponse)
    return message.score


async def may_not_see(stub: Stub, run: str) -> None:
    """The caller learns nothing of a run, by any method."""
    for call in (
        stub.GetScore(dataset_pb2.GetScoreRequest(run=run)),
        stub.WatchScores(dataset_pb2.WatchScoresRequest(runs=[run])).read(),
        stub.ListResults(dataset_pb2.ListResultsRequest(run=run)).read(),
        stub.Evaluate(dataset_pb2.EvaluateRequest(run=run)),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED")
        assert error.message.startswith(("run: ", "runs[0]: "))
        assert "anns" not in error.message
        assert "bens" not in error.message


async def test_the_second_owner_gets_the_first_ones_work_and_sees_it_as_their_own(
    harness: DatasetHarness, ann: Stub, ben: Stub
) -> None:
    first = await evaluated(ann, dataset="anns")
    await may_not_see(ben, first.run)

    second = await start(ben, dataset="bens")

    assert (second.run, second.version) == (first.run, first.version)
    assert (second.state, second.done, second.dataset) == (COMPLETE, 4, "bens")
    assert len(harness.router.prompts) == 4
    for stub, dataset in ((ann, "anns"), (ben, "bens")):
        got = (await stub.GetScore(dataset_pb2.GetScoreRequest(run=first.run))).score
        assert (got.dataset, got.correct) == (dataset, 4)
        assert (await told_of(stub, first.run)).dataset == dataset
        assert (await told_of(stub)).dataset == dataset
        assert [r.prediction for r in await results(stub, first.run)] == [1] * 4


async def test_what_was_entered_in_one_owners_pool_the_other_does_not_see(
    harness: DatasetHarness, ann: Stub, ben: Stub
) -> None:
    service = await harness.stub(harness.benchmark)
    participant = Identity.generate().address

    entered = await evaluated(service, dataset="bens", participant=participant)
    own = await evaluated(ann, OTHER_MODEL, dataset="anns")

    assert entered.dataset == "bens"
    await may_not_see(ann, entered.run)
    # Of all that she may see, the first is her own, which came later.
    assert (await told_of(ann)).run == own.run
    assert (await told_of(ben)).run == entered.run
    assert len(await results(ben, entered.run)) == 4


async def test_an_upload_entered_by_its_owner_stays_unseen_by_the_others(
    harness: DatasetHarness, ann: Stub, ben: Stub
) -> None:
    participant = Identity.generate().address
    harness.router.models[MODEL].owner = participant
    service = await harness.stub(harness.benchmark)
    entered = await evaluated(service, dataset="bens", participant=participant)

    error = await refusal(start(ann, dataset="anns"))

    assert error.reason == "SUBJECT_NOT_OWNED"
    await may_not_see(ann, entered.run)


async def test_a_watch_is_told_of_a_run_that_its_caller_may_see_from_now_on(
    harness: DatasetHarness, ann: Stub, ben: Stub
) -> None:
    first = await evaluated(ann, dataset="anns")
    own = await evaluated(ben, OTHER_MODEL, dataset="bens")
    watch = ben.WatchScores(dataset_pb2.WatchScoresRequest(after_cursor=own.cursor))

    await start(ben, dataset="bens")
    message = await watch.read()
    watch.cancel()

    assert isinstance(message, dataset_pb2.WatchScoresResponse)
    assert (message.score.run, message.score.dataset) == (first.run, "bens")


async def test_asking_again_on_the_same_dataset_is_no_change(
    harness: DatasetHarness, ann: Stub
) -> None:
    first = await evaluated(ann, dataset="anns")

    again = await start(ann, dataset="anns")

    assert again.cursor == first.cursor


async def test_one_owner_of_two_such_datasets_is_told_of_the_run_once(
    harness: DatasetHarness, ann: Stub
) -> None:
    await harness.load(lines(4), "anns-too")
    await evaluated(ann, dataset="anns")
    named = await start(ann, dataset="anns-too")
    other = await evaluated(ann, OTHER_MODEL, dataset="anns-too")

    watch = ann.WatchScores(dataset_pb2.WatchScoresRequest())
    seen = [await watch.read() for _ in range(2)]
    watch.cancel()

    assert named.dataset == "anns-too"
    runs = [m.score.run for m in seen if isinstance(m, dataset_pb2.WatchScoresResponse)]
    assert runs == [named.run, other.run]


async def test_either_owner_has_the_open_questions_taken_up(
    harness: DatasetHarness, ann: Stub, ben: Stub
) -> None:
    harness.router.open.clear()
    run = (await start(ann, dataset="anns")).run
    await harness.router.reached.wait()
    everything = dataset_pb2.EvaluateRequest()

    before = (await ben.Evaluate(everything)).scheduled
    await start(ben, dataset="bens")
    after = [(await stub.Evaluate(everything)).scheduled for stub in (ann, ben)]
    named = (await ben.Evaluate(dataset_pb2.EvaluateRequest(run=run))).scheduled
    harness.router.open.set()
    await until(ben, run, COMPLETE)

    assert (before, after, named) == (0, [4, 4], 4)
    assert len(harness.router.prompts) == 4

"""Request ids of CreateDataset and Benchmark, over real gRPC with a double of the router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from evalpool.dataset.v1 import dataset_pb2
from evalpool.errors import CallError
from tests.dataset.dataset_harness import (
    ENDED,
    MODEL,
    OTHER_MODEL,
    DatasetHarness,
    evaluated,
    lines,
    nothing_changes,
    refusal,
    running_dataset,
    sending,
    start,
    until,
)
from tests.dataset.router_double import RouterDouble

COMPLETE = dataset_pb2.RUN_STATE_COMPLETE
FAILED = dataset_pb2.RUN_STATE_FAILED


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DatasetHarness]:
    async with (
        RouterDouble.knowing(MODEL, OTHER_MODEL) as router,
        running_dataset(tmp_path, router) as m,
    ):
        yield m


def create(dataset: str = "d", **fields: Any) -> dataset_pb2.CreateDatasetRequest:
    return dataset_pb2.CreateDatasetRequest(id=dataset, kind="siqa", **fields)


def check_reused(error: CallError) -> None:
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert error.message.startswith('request_id: "once" was used before with other content; ')
    assert error.metadata["request_id"] == "once"


async def test_a_repeated_start_retries_nothing_and_tells_how_the_run_stands(
    harness: DatasetHarness,
) -> None:
    stub = await harness.load(lines(3))
    harness.router.refusals = [(grpc.StatusCode.FAILED_PRECONDITION, "MODEL_LOAD_FAILED")]
    first = await evaluated(stub, request_id="once")

    repeated = await start(stub, request_id="once")
    retried = await start(stub, request_id="again")
    await until(stub, first.run, COMPLETE)
    at_last = await start(stub, request_id="once")

    assert (first.state, repeated) == (FAILED, first)
    assert retried.state not in ENDED
    assert (at_last.run, at_last.state, at_last.done) == (first.run, COMPLETE, 3)


async def test_without_an_id_each_start_is_one_of_its_own(harness: DatasetHarness) -> None:
    stub = await harness.load(lines(3))
    harness.router.refusals = [(grpc.StatusCode.FAILED_PRECONDITION, "MODEL_LOAD_FAILED")]
    first = await evaluated(stub)

    again = await start(stub)

    assert (first.state, again.state) == (FAILED, dataset_pb2.RUN_STATE_QUEUED)


async def test_a_repeated_start_is_of_the_version_that_was_the_newest_then(
    harness: DatasetHarness,
) -> None:
    stub = await harness.load(lines(3))
    first = await evaluated(stub, request_id="once")
    options = dataset_pb2.LoadOptions(dataset="d", format=dataset_pb2.DATA_FORMAT_JSON_LINES)
    await stub.LoadData(sending(options, [lines(4)]))

    repeated = await start(stub, request_id="once")
    newer = await start(stub)

    assert repeated == first
    assert newer.version != first.version


async def test_a_repeated_start_asks_the_herd_nothing(harness: DatasetHarness) -> None:
    stub = await harness.load(lines(3))
    first = await evaluated(stub, request_id="once")
    await harness.router.stop()

    assert await start(stub, request_id="once") == first


async def test_starts_at_once_with_one_id_are_one(harness: DatasetHarness) -> None:
    stub = await harness.load(lines(3))

    scores = await asyncio.gather(*(start(stub, request_id="once") for _ in range(5)))

    assert len({score.run for score in scores}) == 1
    assert (await until(stub, scores[0].run, COMPLETE)).done == 3


async def test_an_id_with_other_content_is_refused(harness: DatasetHarness) -> None:
    stub = await harness.load(lines(3), request_id="made")
    await evaluated(stub, request_id="once")

    async with nothing_changes(harness):
        for call in (
            start(stub, OTHER_MODEL, request_id="once"),
            start(stub, evaluator=dataset_pb2.EVALUATOR_LETTER, request_id="once"),
            # One name space over both methods.
            stub.CreateDataset(create("e", request_id="once")),
        ):
            check_reused(await refusal(call))


async def test_somebody_elses_id_is_another(harness: DatasetHarness) -> None:
    stub = await harness.load(lines(3))
    service = await harness.stub(harness.benchmark)

    first = await start(stub, request_id="once")
    other = await start(service, OTHER_MODEL, request_id="once")

    assert first.run != other.run


async def test_an_id_whose_call_was_refused_is_free(harness: DatasetHarness) -> None:
    stub = await harness.create()
    empty = await refusal(start(stub, request_id="once"))
    options = dataset_pb2.LoadOptions(dataset="d", format=dataset_pb2.DATA_FORMAT_JSON_LINES)
    await stub.LoadData(sending(options, [lines(3)]))

    assert empty.reason == "DATASET_EMPTY"
    assert (await evaluated(stub, request_id="once")).state == COMPLETE
    assert (await evaluated(stub, OTHER_MODEL, request_id="other")).state == COMPLETE


async def test_a_dataset_made_again_with_its_id_is_described_as_it_is(
    harness: DatasetHarness,
) -> None:
    stub = await harness.load(lines(3), title="T", request_id="once")

    again = (await stub.CreateDataset(create(title="T", request_id="once"))).dataset
    present = (await stub.GetDataset(dataset_pb2.GetDatasetRequest(id="d"))).dataset

    assert again == present
    assert again.question_count == 3


async def test_ids_are_kept_over_a_restart(tmp_path: Path) -> None:
    async with RouterDouble.knowing(MODEL) as router:
        async with running_dataset(tmp_path, router) as harness:
            first = await evaluated(await harness.load(lines(3)), request_id="once")
        async with running_dataset(tmp_path, router) as harness:
            stub = await harness.stub()
            assert await start(stub, request_id="once") == first
            check_reused(await refusal(start(stub, OTHER_MODEL, request_id="once")))

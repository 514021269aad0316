"""LoadData happens once a bearer token, over real gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from evalpool.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from tests.dataset.dataset_harness import (
    DatasetHarness,
    lines,
    nothing_changes,
    refusal,
    running_dataset,
    sending,
)
from tests.dataset.router_double import RouterDouble
from tests.refusals import bearer

if TYPE_CHECKING:
    from tests.dataset.dataset_harness import Stub


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DatasetHarness]:
    async with RouterDouble.knowing() as router, running_dataset(tmp_path, router) as made:
        await made.create()
        yield made


@pytest.fixture
async def unsigned(harness: DatasetHarness) -> AsyncIterator[Stub]:
    """A line without a key, on which calls carry the tokens that they are given."""
    async with harness.service.channel(None) as channel:
        yield dataset_pb2_grpc.DatasetServiceStub(channel)


def file(count: int, **options: str) -> AsyncIterator[dataset_pb2.LoadDataRequest]:
    given = {"dataset": "d", "format": dataset_pb2.DATA_FORMAT_JSON_LINES} | options
    return sending(dataset_pb2.LoadOptions(**given), [lines(count)])  # type: ignore[arg-type]


async def test_a_replayed_load_gets_its_first_answer_and_puts_no_older_version_back(
    harness: DatasetHarness, unsigned: Stub
) -> None:
    metadata = bearer(harness.owner.token(harness.service.address))
    stub = await harness.stub()
    first = await unsigned.LoadData(file(3), metadata=metadata)
    second = await stub.LoadData(file(4))

    async with nothing_changes(harness):
        replayed = await unsigned.LoadData(file(3), metadata=metadata)

    assert replayed == first
    present = (await stub.GetDataset(dataset_pb2.GetDatasetRequest(id="d"))).dataset
    assert present == second.dataset


async def test_a_loads_token_is_good_for_nothing_else(
    harness: DatasetHarness, unsigned: Stub
) -> None:
    metadata = bearer(harness.owner.token(harness.service.address))
    await harness.create("e")
    await unsigned.LoadData(file(3), metadata=metadata)

    async with nothing_changes(harness):
        for other in (file(4), file(3, dataset="e"), file(3, source="elsewhere")):
            error = await refusal(unsigned.LoadData(other, metadata=metadata))
            assert (error.code, error.reason) == (
                grpc.StatusCode.ALREADY_EXISTS,
                "TOKEN_REPLAYED",
            )


async def test_a_load_that_was_refused_leaves_its_token_good(
    harness: DatasetHarness, unsigned: Stub
) -> None:
    metadata = bearer(harness.owner.token(harness.service.address))
    options = dataset_pb2.LoadOptions(dataset="d", format=dataset_pb2.DATA_FORMAT_JSON_LINES)

    refused = await refusal(unsigned.LoadData(sending(options, [b"{}\n"]), metadata=metadata))
    loaded = await unsigned.LoadData(file(3), metadata=metadata)

    assert refused.reason == "INVALID_ROWS"
    assert loaded.dataset.question_count == 3

"""Bad files over real gRPC: told by line and field, and nothing of them is kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from evalpool.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from tests.dataset.dataset_harness import (
    DatasetHarness,
    json_lines,
    lines,
    nothing_changes,
    refusal,
    row,
    running_dataset,
    sending,
)
from tests.dataset.router_double import RouterDouble

if TYPE_CHECKING:
    Stub = dataset_pb2_grpc.DatasetServiceAsyncStub

INVALID = grpc.StatusCode.INVALID_ARGUMENT
Call = Callable[["Stub"], Awaitable[Any]]


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DatasetHarness]:
    """A service with a dataset "d" that has a version."""
    async with RouterDouble.knowing() as router, running_dataset(tmp_path, router) as made:
        await made.load(lines(3))
        yield made


def options(**fields: Any) -> dataset_pb2.LoadOptions:
    given: dict[str, Any] = {"dataset": "d", "format": dataset_pb2.DATA_FORMAT_JSON_LINES}
    return dataset_pb2.LoadOptions(**given | fields)


def load(content: bytes, **fields: Any) -> Call:
    return lambda stub: stub.LoadData(sending(options(**fields), [content]))


def bad_row(**fields: Any) -> bytes:
    """A good row, and one that has other fields or, by None, lacks them."""
    changed = {name: value for name, value in (row(2) | fields).items() if value is not None}
    return lines(1) + json.dumps(changed).encode() + b"\n"


BAD_FILES: dict[str, tuple[bytes, list[str], str]] = {
    # The file, the fields of its violations, and words of the remedy.
    "a row without an answer": (
        bad_row(label=None), ["lines[2].label"], "give the choice's number from 1",
    ),
    "an answer out of range": (
        bad_row(label="4"), ["lines[2].label"], "give 1 to 3, or a letter from A to C",
    ),
    "an answer of zero": (bad_row(label=0), ["lines[2].label"], "give 1 to 3"),
    "an answer that is none": (bad_row(label="N/A"), ["lines[2].label"], "give 1 to 3"),
    "invalid UTF-8": (
        lines(1) + json_lines([row(2)]).replace(b"Sam", b"S\xff"), ["lines[2]"], "as UTF-8",
    ),
    "an empty file": (b"", ["file"], "give at least one"),
    "blank lines alone": (b"\n\n", ["file"], "give at least one"),
    "no JSON": (b"hello\n", ["lines[1]"], "give one JSON object"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "fields", "remedy"), BAD_FILES.values(), ids=BAD_FILES)
async def test_a_bad_file_is_told_by_line_and_field_and_nothing_of_it_is_kept(
    harness: DatasetHarness, content: bytes, fields: list[str], remedy: str
) -> None:
    stub = await harness.stub()

    async with nothing_changes(harness):
        error = await refusal(load(content)(stub))

    assert (error.code, error.reason) == (INVALID, "INVALID_ROWS")
    assert error.message.startswith("chunk: ")
    assert [violation.field for violation in error.violations] == fields
    assert remedy in error.violations[0].description


async def test_a_line_of_50_megabytes_is_refused(harness: DatasetHarness) -> None:
    stub = await harness.stub()

    def line() -> Iterator[bytes]:
        yield lines(1) + b'{"context": "'
        for _ in range(50):
            yield b"x" * 1_000_000
        yield b'"}\n'

    async with nothing_changes(harness):
        error = await refusal(stub.LoadData(sending(options(sha256="0" * 64), line())))

    assert (error.code, error.reason) == (INVALID, "INVALID_ROWS")
    assert error.message.startswith("chunk: ")
    assert [violation.field for violation in error.violations] == ["lines[2]"]
    assert "longer than 1048576 bytes; split the file" in error.violations[0].description


@pytest.mark.parametrize(
    ("messages", "field", "remedy"),
    [
        ([dataset_pb2.LoadDataRequest(options=options(sha256="0" * 64))] * 2, "options", "first"),
        (
            [
                dataset_pb2.LoadDataRequest(options=options(sha256="0" * 64)),
                dataset_pb2.LoadDataRequest(),
            ],
            "chunk",
            "send bytes",
        ),
        (
            [
                dataset_pb2.LoadDataRequest(options=options(sha256="0" * 64)),
                dataset_pb2.LoadDataRequest(chunk=b"x" * ((1 << 20) + 1)),
            ],
            "chunk",
            "at most 1048576",
        ),
    ],
    ids=["options twice", "an empty message", "a chunk above a mebibyte"],
)
async def test_a_load_that_breaks_its_order_is_refused(
    harness: DatasetHarness,
    messages: list[dataset_pb2.LoadDataRequest],
    field: str,
    remedy: str,
) -> None:
    stub = await harness.stub()

    async with nothing_changes(harness):
        error = await refusal(stub.LoadData(iter(messages)))

    assert (error.code, error.reason) == (INVALID, "INVALID_FIELD")
    assert [violation.field for violation in error.violations] == [field]
    assert remedy in error.message

"""The dataset service over real gRPC: datasets, files and who may see them."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evalpool.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from evalpool.identity import Identity
from tests.dataset.dataset_harness import (
    MODEL,
    DatasetHarness,
    json_lines,
    lines,
    refusal,
    row,
    running_dataset,
    sending,
)
from tests.dataset.router_double import RouterDouble
from tests.published import Published

JSON_LINES = dataset_pb2.DATA_FORMAT_JSON_LINES


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DatasetHarness]:
    async with RouterDouble.knowing(MODEL) as router, running_dataset(tmp_path, router) as made:
        yield made


def options(
    form: dataset_pb2.DataFormat.ValueType = JSON_LINES, dataset: str = "d", **fields: object
) -> dataset_pb2.LoadOptions:
    return dataset_pb2.LoadOptions(dataset=dataset, format=form, **fields)  # type: ignore[arg-type]


def pieces(content: bytes, size: int = 100_000) -> Iterable[bytes]:
    return (content[n : n + size] for n in range(0, len(content), size))


def csv(rows: list[dict[str, str]]) -> bytes:
    table = [list(rows[0]), *(list(r.values()) for r in rows)]
    return "".join(",".join(f'"{cell}"' for cell in line) + "\n" for line in table).encode()


def parquet(rows: list[dict[str, str]]) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), written)
    return written.getvalue()


async def test_a_dataset_is_made_and_described_without_questions(harness: DatasetHarness) -> None:
    stub = await harness.create(title="Social IQa", license="CC-BY-4.0")

    found = (await stub.GetDataset(dataset_pb2.GetDatasetRequest(id="d"))).dataset

    assert (found.id, found.owner, found.kind) == ("d", harness.owner.address, "siqa")
    assert (found.title, found.license) == ("Social IQa", "CC-BY-4.0")
    assert found.evaluator == dataset_pb2.EVALUATOR_LOGLIKELIHOOD
    assert (found.version, found.question_count) == ("", 0)
    # What a pool on it can be judged with; `judge` is none of them.
    assert found.evaluators == ["letter", "loglikelihood"]


async def test_a_dataset_made_again_alike_is_the_same_and_otherwise_refused(
    harness: DatasetHarness,
) -> None:
    stub = await harness.create()
    await harness.create()

    request = dataset_pb2.CreateDatasetRequest(id="d", kind="siqa")
    stranger = await harness.stub(Identity.generate())
    by_another = await refusal(stranger.CreateDataset(request))
    request.title = "Other"
    otherwise = await refusal(stub.CreateDataset(request))

    assert {by_another.reason, otherwise.reason} == {"DATASET_EXISTS"}
    assert by_another.code is grpc.StatusCode.ALREADY_EXISTS


async def test_all_wrong_fields_of_a_dataset_are_told_at_once(harness: DatasetHarness) -> None:
    stub = await harness.stub()

    error = await refusal(
        stub.CreateDataset(
            dataset_pb2.CreateDatasetRequest(id="Not An Id", kind="chess", title="x" * 201)
        )
    )

    assert {v.field for v in error.violations} == {"id", "kind", "title"}


@pytest.mark.parametrize(
    ("form", "content"),
    [
        (JSON_LINES, json_lines(row(n, n % 3 + 1) for n in range(1, 51))),
        (
            dataset_pb2.DATA_FORMAT_JSON_ARRAY,
            json.dumps([row(n, n % 3 + 1) for n in range(1, 51)]).encode(),
        ),
        (dataset_pb2.DATA_FORMAT_CSV, csv([row(n, n % 3 + 1) for n in range(1, 51)])),
        (dataset_pb2.DATA_FORMAT_PARQUET, parquet([row(n, n % 3 + 1) for n in range(1, 51)])),
    ],
    ids=["lines", "array", "csv", "parquet"],
)
async def test_every_form_of_file_gives_the_same_questions(
    harness: DatasetHarness, form: dataset_pb2.DataFormat.ValueType, content: bytes
) -> None:
    stub = await harness.create()

    response = await stub.LoadData(sending(options(form), pieces(content, 700)))
    page = await stub.ListQuestions(dataset_pb2.ListQuestionsRequest(dataset="d", page_size=1000))

    assert response.dataset.question_count == 50
    assert len(response.dataset.version) == 64
    assert not response.unchanged
    assert [(q.id, q.result) for q in page.questions] == [(n, n % 3 + 1) for n in range(1, 51)]
    assert list(page.questions[6].answers) == [row(7)[f"answer{c}"] for c in "ABC"]
    await harness.load(json_lines(row(n, n % 3 + 1) for n in range(1, 51)), "e")
    other = (await stub.GetDataset(dataset_pb2.GetDatasetRequest(id="e"))).dataset
    assert other.version == response.dataset.version


async def test_pages_of_long_questions_end_before_a_message_is_full(
    harness: DatasetHarness,
) -> None:
    long = [row(n) | {"context": "long " * 100_000} for n in range(1, 41)]
    stub = await harness.create()
    await stub.LoadData(sending(options(), pieces(json_lines(long), 1_000_000)))
    request = dataset_pb2.ListQuestionsRequest(dataset="d", page_size=1000)

    pages = [await stub.ListQuestions(request)]
    while pages[-1].next_page_token:
        request.page_token = pages[-1].next_page_token
        pages.append(await stub.ListQuestions(request))

    assert [q.id for page in pages for q in page.questions] == list(range(1, 41))
    assert len(pages) == 3


async def test_the_file_as_the_seed_loads_it_is_taken_as_it_is(
    harness: DatasetHarness, published: Published
) -> None:
    stub = await harness.create()
    content = published.as_the_seed_loads_it()
    rows = published.rows()[: published.seed_count]

    response = await stub.LoadData(
        sending(
            options(dataset_pb2.DATA_FORMAT_JSON_ARRAY, sha256=hashlib.sha256(content).hexdigest()),
            pieces(content),
        )
    )

    assert response.dataset.question_count == published.seed_count
    page = await stub.ListQuestions(dataset_pb2.ListQuestionsRequest(dataset="d", page_size=1000))
    assert [(q.context, q.question, *q.answers, str(q.result)) for q in page.questions] == [
        tuple(row.values()) for row in rows
    ]


async def test_labels_may_lie_in_a_file_of_their_own(harness: DatasetHarness) -> None:
    stub = await harness.create()
    rows = [row(n) for n in range(1, 4)]
    for one in rows:
        del one["label"]

    await stub.LoadData(sending(options(labels=b"3\n1\n2\n"), [json_lines(rows)]))

    page = await stub.ListQuestions(dataset_pb2.ListQuestionsRequest(dataset="d"))
    assert [q.result for q in page.questions] == [3, 1, 2]


async def test_the_same_file_again_changes_nothing(harness: DatasetHarness) -> None:
    stub = await harness.load(lines(3))
    before = (await stub.GetDataset(dataset_pb2.GetDatasetRequest(id="d"))).dataset

    again = await stub.LoadData(sending(options(), [lines(3)]))

    assert again.unchanged
    assert again.dataset.version == before.version


async def test_an_older_version_stays_and_pages_keep_to_the_version_they_began_with(
    harness: DatasetHarness,
) -> None:
    stub = await harness.load(lines(3, label=1))
    old = (await stub.GetDataset(dataset_pb2.GetDatasetRequest(id="d"))).dataset.version
    request = dataset_pb2.ListQuestionsRequest(dataset="d", page_size=2)
    first = await stub.ListQuestions(request)

    await stub.LoadData(sending(options(), [lines(5, label=2)]))
    request.page_token = first.next_page_token
    second = await stub.ListQuestions(request)

    assert [(q.id, q.result) for q in second.questions] == [(3, 1)]
    assert not second.next_page_token
    described = await stub.GetDataset(dataset_pb2.GetDatasetRequest(id="d", version=old))
    assert described.dataset.question_count == 3


async def test_only_the_owner_loads_and_lists_questions(harness: DatasetHarness) -> None:
    await harness.load(lines(3))
    for person in (Identity.generate(), harness.benchmark, harness.service.operator):
        stub = await harness.stub(person)
        load = await refusal(stub.LoadData(sending(options(), [lines(4)])))
        listing = await refusal(stub.ListQuestions(dataset_pb2.ListQuestionsRequest(dataset="d")))
        assert {load.code, listing.code} == {grpc.StatusCode.PERMISSION_DENIED}
        assert {load.reason, listing.reason} == {"NOT_ALLOWED"}
    owner = await harness.stub()
    found = await owner.GetDataset(dataset_pb2.GetDatasetRequest(id="d"))
    assert found.dataset.question_count == 3


async def test_every_bad_row_is_told_by_line_and_field_and_nothing_is_kept(
    harness: DatasetHarness,
) -> None:
    stub = await harness.create()
    unanswered, unasked = row(2), row(5)
    del unanswered["label"]
    del unasked["question"]
    good = lines(1).rstrip(b"\n")
    content = b"\n".join(
        [
            good,
            json_lines([unanswered]).rstrip(b"\n"),
            json_lines([row(3, label=4)]).rstrip(b"\n"),
            good.replace(b"Sam", b"S\xff"),
            json_lines([unasked]).rstrip(b"\n"),
            b"{not json",
        ]
    )

    error = await refusal(stub.LoadData(sending(options(), [content])))

    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_ROWS"
    assert [v.field for v in error.violations] == [
        "lines[2].label",
        "lines[3].label",
        "lines[4]",
        "lines[5].question",
        "lines[6]",
    ]
    assert error.metadata["problems"] == "5"
    assert "nothing of it was kept" in error.message
    found = await stub.GetDataset(dataset_pb2.GetDatasetRequest(id="d"))
    assert found.dataset.question_count == 0


async def test_a_line_above_a_mebibyte_is_refused(harness: DatasetHarness) -> None:
    stub = await harness.create()
    long = json_lines([row(1) | {"context": "x" * (1 << 20)}])

    error = await refusal(stub.LoadData(sending(options(), pieces(lines(1) + long))))

    assert [v.field for v in error.violations] == ["lines[2]"]


@pytest.mark.parametrize(
    ("owner", "reason"), [(True, "INVALID_ROWS"), (False, "NOT_ALLOWED")], ids=["file", "stranger"]
)
async def test_a_refusal_reaches_a_client_that_is_still_sending(
    harness: DatasetHarness, owner: bool, reason: str
) -> None:
    stub = await harness.create()
    if not owner:
        stub = await harness.stub(Identity.generate())
    sent = 0

    async def endless() -> AsyncIterator[dataset_pb2.LoadDataRequest]:
        nonlocal sent
        yield dataset_pb2.LoadDataRequest(options=options(sha256="0" * 64))
        while sent < 50:
            sent += 1
            yield dataset_pb2.LoadDataRequest(chunk=b"x" * (1 << 20))
        # The client has more to say: only the refusal ends the call.
        await asyncio.Event().wait()

    error = await refusal(stub.LoadData(endless()))

    assert error.reason == reason
    assert [v.field for v in error.violations] == (["lines[1]"] if owner else [])


async def test_a_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    async with (
        RouterDouble.knowing() as router,
        running_dataset(tmp_path, router, max_file_bytes=1000) as harness,
    ):
        stub = await harness.create()
        error = await refusal(stub.LoadData(sending(options(), pieces(lines(20), 300))))
    assert "larger than 1000 bytes" in error.message


@pytest.mark.parametrize(
    ("first", "fields"),
    [
        (None, {"options"}),
        (options(dataset_pb2.DATA_FORMAT_UNSPECIFIED), {"options.format"}),
        (options(77), {"options.format"}),  # type: ignore[arg-type]
        (options(dataset="NO", sha256="abc"), {"options.dataset", "options.sha256"}),
    ],
)
async def test_a_load_needs_its_options(
    harness: DatasetHarness, first: dataset_pb2.LoadOptions | None, fields: set[str]
) -> None:
    stub = await harness.create()

    error = await refusal(stub.LoadData(sending(first, [lines(1)])))

    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert {v.field for v in error.violations} == fields


async def test_datasets_are_listed_page_by_page(harness: DatasetHarness) -> None:
    for name in ("c", "a", "b"):
        await harness.create(name)
    stub = await harness.stub(Identity.generate())
    request = dataset_pb2.ListDatasetsRequest(page_size=2)

    first = await stub.ListDatasets(request)
    request.page_token = first.next_page_token
    second = await stub.ListDatasets(request)

    assert [d.id for d in [*first.datasets, *second.datasets]] == ["a", "b", "c"]
    assert not second.next_page_token


async def test_anyone_may_ask_who_the_server_is(harness: DatasetHarness) -> None:
    async with harness.service.channel(None) as channel:
        info = await dataset_pb2_grpc.DatasetServiceStub(channel).GetInfo(
            dataset_pb2.GetInfoRequest()
        )
    assert info.info.address == harness.service.address
    assert {"siqa", "multiple_choice"} <= set(info.kinds)
    assert {"loglikelihood", "letter"} <= set(info.evaluators)

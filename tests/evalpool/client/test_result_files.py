"""Writing a run's results to files, from a service that is a double and breaks as it is told."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from grpc import aio

from evalpool.client import Client
from evalpool.client.parquet_results import SCHEMA
from evalpool.client.result_files import write_results
from evalpool.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from evalpool.endpoints import Endpoints
from evalpool.identity import Identity
from evalpool.values import InvalidValue
from evalpool.wallet import AddressBook

RUN = "A" * 43
START = datetime(2026, 3, 1, 12, 30, 15, 250_001, tzinfo=UTC)


def result(question: int) -> dataset_pb2.ListResultsResponse:
    """A question that is done."""
    message = dataset_pb2.ListResultsResponse(
        question=question,
        state=dataset_pb2.EVALUATION_STATE_DONE,
        prompt=f"Question {question}: naïve\nor\t“not”?",
        correct_answer=2,
        prediction=2,
        correct=True,
        sum_logprobs=[-1.5, -0.1, -1 / 3],
        reply="B.",
        inference_reference="r-1",
        worker="w" * 43,
        attempts=2,
        engine_build="llama.cpp 1",
        predictions={"acc_norm": 1, "acc": 2},
        points=7,
        choices=["a", "b", "c"],
        expected=["b"],
        extracted={"strict": "B", "none": ""},
    )
    message.inference_start_time.FromDatetime(START)
    message.inference_end_time.FromDatetime(START + timedelta(seconds=1, microseconds=7))
    message.latency.FromTimedelta(timedelta(seconds=1, microseconds=7))
    message.judging.CopyFrom(ParseDict({"model": "m", "seed": 3}, Struct()))
    return message


def failed(question: int) -> dataset_pb2.ListResultsResponse:
    return dataset_pb2.ListResultsResponse(
        question=question,
        state=dataset_pb2.EVALUATION_STATE_FAILED,
        reason="it does not fit",
        attempts=3,
    )


class Service(dataset_pb2_grpc.DatasetServiceServicer):
    """Lists results, and breaks off.

    Attributes:
        identity: Its key.
        results: What it lists.
        breaks: After how many results a call breaks off, and how, a pair a call.
        asked: After which question each call began.
    """

    def __init__(self, results: list[dataset_pb2.ListResultsResponse]) -> None:
        self.identity = Identity.generate()
        self.results = results
        self.breaks: list[tuple[int, grpc.StatusCode]] = []
        self.asked: list[int] = []

    @classmethod
    def of(cls, results: list[dataset_pb2.ListResultsResponse]) -> Self:
        """One with these results; what it does not implement is not called."""
        return cls(results)

    async def GetInfo(
        self, request: dataset_pb2.GetInfoRequest, context: Any
    ) -> dataset_pb2.GetInfoResponse:
        response = dataset_pb2.GetInfoResponse()
        response.info.address = self.identity.address
        return response

    async def ListResults(
        self, request: dataset_pb2.ListResultsRequest, context: Any
    ) -> AsyncIterator[dataset_pb2.ListResultsResponse]:
        self.asked.append(request.after_question)
        after, code = self.breaks.pop(0) if self.breaks else (sys.maxsize, grpc.StatusCode.OK)
        for place, each in enumerate(self.results[request.after_question :]):
            if place == after:
                await context.abort(code, "as told")
            yield each


@asynccontextmanager
async def serving(service: Service, home: Path) -> AsyncIterator[Client]:
    server = aio.server()
    dataset_pb2_grpc.add_DatasetServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    endpoints = Endpoints(dataset=f"127.0.0.1:{port}")
    async with Client(
        Identity.generate(), endpoints=endpoints, addresses=AddressBook(home)
    ) as client:
        yield client
    await server.stop(None)


async def test_lines_are_the_contracts_messages(tmp_path: Path) -> None:
    found = [result(1), failed(2)]
    path = tmp_path / "results.jsonl"
    async with serving(Service.of(found), tmp_path / "home") as client:
        told: list[int] = []
        assert await write_results(client, RUN, path, progress=told.append) == 2
    assert told == [1, 2]
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    assert [ParseDict(each, dataset_pb2.ListResultsResponse()) for each in documents] == found
    assert documents[0]["inference_start_time"] == "2026-03-01T12:30:15.250001Z"
    # What is 0 or false is told too.
    assert documents[1]["correct"] is False


async def test_columns_have_types(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    async with serving(Service.of([result(1), failed(2)]), tmp_path / "home") as client:
        assert await write_results(client, RUN, path) == 2
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMA)
    done, lost = table.to_pylist()
    assert done == {
        "question": 1,
        "state": "EVALUATION_STATE_DONE",
        "prompt": "Question 1: naïve\nor\t“not”?",
        "correct_answer": 2,
        "prediction": 2,
        "correct": True,
        "sum_logprobs": [-1.5, -0.1, -1 / 3],
        "reply": "B.",
        "inference_start_time": START,
        "inference_end_time": START + timedelta(seconds=1, microseconds=7),
        "inference_reference": "r-1",
        "latency": timedelta(seconds=1, microseconds=7),
        "worker": "w" * 43,
        "attempts": 2,
        "reason": "",
        "engine_build": "llama.cpp 1",
        "predictions": [("acc", 2), ("acc_norm", 1)],
        "points": 7,
        "choices": ["a", "b", "c"],
        "expected": ["b"],
        "extracted": [("none", ""), ("strict", "B")],
        "judging": '{"model": "m", "seed": 3.0}',
    }
    # What failed is no wrong answer: a mean is over what is done.
    empty = ("prediction", "correct", "points", "latency", "inference_start_time", "judging")
    assert {lost[name] for name in empty} == {None}
    assert (lost["state"], lost["reason"]) == ("EVALUATION_STATE_FAILED", "it does not fit")


def test_the_columns_are_the_contracts_fields_in_its_order() -> None:
    fields = dataset_pb2.ListResultsResponse.DESCRIPTOR.fields
    assert SCHEMA.names == [field.name for field in sorted(fields, key=lambda f: f.number)]
    assert SCHEMA.field("inference_start_time").type == pa.timestamp("us", tz="UTC")
    assert SCHEMA.field("latency").type == pa.duration("us")


@pytest.mark.parametrize("name", ["results.jsonl", "results.parquet"])
async def test_what_breaks_off_goes_on_where_it_was(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalpool.client.parquet_results.ROWS_A_GROUP", 4)
    service = Service.of([result(number) for number in range(1, 11)])
    gone = grpc.StatusCode.UNAVAILABLE
    service.breaks = [(3, gone), (5, gone)]
    path = tmp_path / name
    async with serving(service, tmp_path / "home") as client:
        assert await write_results(client, RUN, path) == 10
    assert service.asked == [0, 3, 8]
    rows = (
        pq.read_table(path).to_pylist()
        if path.suffix == ".parquet"
        else [json.loads(line) for line in path.read_text().splitlines()]
    )
    assert [row["question"] for row in rows] == list(range(1, 11))


@pytest.mark.parametrize("name", ["results.jsonl", "results.parquet"])
async def test_what_fails_on_the_way_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    service = Service.of([result(number) for number in range(1, 6)])
    path = tmp_path / "out" / name
    path.parent.mkdir()
    async with serving(service, tmp_path / "home") as client:
        for before in ([], [name]):
            service.breaks = [(3, grpc.StatusCode.PERMISSION_DENIED)]
            with pytest.raises(grpc.aio.AioRpcError):
                await write_results(client, RUN, path)
            assert [each.name for each in path.parent.iterdir()] == before
            path.write_bytes(b"from before")
    assert path.read_bytes() == b"from before"


@pytest.mark.parametrize("name", ["results.jsonl", "results.parquet"])
async def test_what_is_interrupted_leaves_nothing(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    service = Service.of([result(number) for number in range(1, 100)])
    async with serving(service, tmp_path / "home") as client:

        def interrupt(count: int) -> None:
            if count == 3:
                writing.cancel()

        writing = asyncio.ensure_future(
            write_results(client, RUN, folder / name, progress=interrupt)
        )
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert not list(folder.iterdir())


async def test_no_result_is_a_file_too(tmp_path: Path) -> None:
    async with serving(Service.of([]), tmp_path / "home") as client:
        for name in ("none.jsonl", "none.parquet"):
            assert await write_results(client, RUN, tmp_path / name) == 0
    assert (tmp_path / "none.jsonl").read_bytes() == b""
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


async def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "results.jsonl"
    async with serving(Service.of([]), tmp_path / "home") as client:
        with pytest.raises(OSError, match="No such file") as caught:
            await write_results(client, RUN, path)
    assert caught.value.filename == str(path)


async def test_an_ending_that_tells_no_form_is_refused(tmp_path: Path) -> None:
    async with serving(Service.of([]), tmp_path / "home") as client:
        with pytest.raises(InvalidValue, match=r"results\.csv tells no form.*\.jsonl, \.parquet"):
            await write_results(client, RUN, tmp_path / "results.csv")


async def test_without_pyarrow_it_is_said_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "evalpool.client.parquet_results")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    async with serving(Service.of([]), tmp_path / "home") as client:
        with pytest.raises(InvalidValue, match=r"evalpool\[dataset\].*\.jsonl"):
            await write_results(client, RUN, tmp_path / "results.parquet")
        assert await write_results(client, RUN, tmp_path / "results.jsonl") == 0

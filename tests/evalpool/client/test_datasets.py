"""Loading files of questions into a real dataset service."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from evalpool.client import CallError, Client
from evalpool.client.datasets import CHUNK_BYTES, load_file, results, watch_run
from evalpool.dataset.v1 import dataset_pb2
from evalpool.endpoints import Endpoints
from evalpool.identity import Identity
from evalpool.wallet import AddressBook
from evalpool_dataset.service import SERVICE
from evalpool_runtime.testing import running
from tests.dataset.dataset_harness import MODEL, lines, running_dataset
from tests.dataset.router_double import RouterDouble

ROW = {"context": "", "question": "Which?", "answerA": "a", "answerB": "b", "answerC": "c"}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    router = Identity.generate().address
    async with running(SERVICE, tmp_path / "dataset", router_address=router) as service:
        endpoints = Endpoints(dataset=service.endpoint)
        book = AddressBook(tmp_path / "home")
        async with Client(Identity.generate(), endpoints=endpoints, addresses=book) as made:
            await made.dataset.CreateDataset(
                dataset_pb2.CreateDatasetRequest(id="mine", kind="siqa", request_id="make")
            )
            yield made


async def test_a_file_is_sent_in_chunks_and_its_progress_told(
    client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "questions.jsonl"
    context = "x" * 1000
    rows = [{**ROW, "context": f"{context} {n}", "label": "1"} for n in range(300)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sent: list[int] = []

    response = await load_file(client, "mine", file, progress=sent.append)

    assert response.dataset.question_count == 300
    assert sent == [CHUNK_BYTES, file.stat().st_size]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("questions.JSONL", json.dumps({**ROW, "label": "2"}) + "\n"),
        ("questions.json", json.dumps([{**ROW, "label": "2"}])),
        ("questions.csv", "context,question,answerA,answerB,answerC,label\n,Which?,a,b,c,2\n"),
    ],
    ids=["jsonl", "json", "csv"],
)
async def test_the_form_is_known_by_the_ending(
    client: Client, tmp_path: Path, name: str, content: str
) -> None:
    file = tmp_path / name
    file.write_text(content)
    await load_file(client, "mine", file)
    found = await client.dataset.ListQuestions(dataset_pb2.ListQuestionsRequest(dataset="mine"))
    assert [question.result for question in found.questions] == [2]


async def test_labels_may_lie_in_a_file_of_their_own(client: Client, tmp_path: Path) -> None:
    file, labels = tmp_path / "dev.jsonl", tmp_path / "dev-labels.lst"
    file.write_text(f"{json.dumps(ROW)}\n" * 2)
    labels.write_text("3\n1\n")
    await load_file(client, "mine", file, labels=labels)
    found = await client.dataset.ListQuestions(dataset_pb2.ListQuestionsRequest(dataset="mine"))
    assert [question.result for question in found.questions] == [3, 1]


async def test_an_ending_that_tells_nothing_needs_the_form(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "questions.txt"
    file.write_text(json.dumps({**ROW, "label": "2"}))
    with pytest.raises(ValueError, match="jsonl, json, csv, parquet"):
        await load_file(client, "mine", file)
    form = dataset_pb2.DATA_FORMAT_JSON_LINES
    response = await load_file(client, "mine", file, data_format=form)
    assert response.dataset.question_count == 1


async def test_bad_rows_are_in_the_error_with_line_and_field(
    client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps(ROW) + "\n")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await load_file(client, "mine", file)
    error = CallError.of(caught.value)
    assert error.reason == "INVALID_ROWS"
    assert [violation.field for violation in error.violations] == ["lines[1].label"]


async def test_a_run_that_does_not_exist_is_no_endless_watch(client: Client) -> None:
    nothing = "A" * 43
    for watch in (watch_run(client, nothing), results(client, nothing)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(watch))
        assert CallError.of(caught.value).reason == "RUN_NOT_FOUND"


async def test_a_run_is_followed_over_the_restoration_of_a_backup(tmp_path: Path) -> None:
    data, backup = tmp_path / "dataset", tmp_path / "backup"
    async with RouterDouble.knowing(MODEL) as router:
        router.open.clear()
        async with running_dataset(data, router) as harness:
            endpoint, owner = harness.service.endpoint, harness.owner
            await harness.load(lines(5))
        shutil.copytree(data, backup)
        endpoints, book = Endpoints(dataset=endpoint), AddressBook(tmp_path / "home")
        async with Client(owner, endpoints=endpoints, addresses=book) as client:

            async def start() -> str:
                request = dataset_pb2.BenchmarkRequest(dataset="d", subject=MODEL)
                return (await client.dataset.Benchmark(request)).score.run

            router.free = 3
            async with running_dataset(data, router, listen=endpoint):
                run = await start()
                watch = watch_run(client, run)
                before = [await anext(watch)]
                while before[-1].done < 3:
                    before.append(await anext(watch))
            shutil.rmtree(data)
            shutil.copytree(backup, data)
            router.free = 0
            async with running_dataset(data, router, listen=endpoint):
                assert await start() == run
                restored = await anext(watch)
                router.open.set()
                after = [score async for score in watch]
    assert (restored.done, restored.cursor) < (before[-1].done, before[-1].cursor)
    assert (after[-1].state, after[-1].done) == (dataset_pb2.RUN_STATE_COMPLETE, 5)

"""The real dataset service beside a double of the router, and people who have stubs to it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from evalpool.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from evalpool.errors import CallError
from evalpool.identity import Identity
from evalpool_dataset.service import SERVICE
from evalpool_runtime.testing import ServiceUnderTest, running
from tests.dataset.router_double import RouterDouble

if TYPE_CHECKING:
    Stub = dataset_pb2_grpc.DatasetServiceAsyncStub

MODEL = "a" * 64
OTHER_MODEL = "b" * 64


def row(number: int, label: int = 1) -> dict[str, str]:
    """A row whose answers' lengths differ, the first the shortest, the second the longest."""
    return {
        "context": f"Sam met friend number {number}.",
        "question": "What next?",
        "answerA": f"go {number}",
        "answerB": f"stay there for the whole day {number}",
        "answerC": f"say hello {number}",
        "label": str(label),
    }


def json_lines(rows: Iterable[dict[str, str]]) -> bytes:
    return "".join(json.dumps(r) + "\n" for r in rows).encode()


def lines(count: int, label: int = 1) -> bytes:
    return json_lines(row(n, label) for n in range(1, count + 1))


async def refusal(call: Any) -> CallError:
    """What a call is refused with, which is told by exactly one ErrorInfo."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    assert status is not None
    infos = [d for d in status.details if d.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    return CallError.of(caught.value)


async def sending(
    options: dataset_pb2.LoadOptions | None, chunks: Iterable[bytes]
) -> AsyncIterator[dataset_pb2.LoadDataRequest]:
    if options is not None:
        if not options.sha256:
            chunks = list(chunks)
            options.sha256 = hashlib.sha256(b"".join(chunks)).hexdigest()
        yield dataset_pb2.LoadDataRequest(options=options)
    for chunk in chunks:
        yield dataset_pb2.LoadDataRequest(chunk=chunk)


class DatasetHarness:
    """A running dataset service.

    Attributes:
        service: The service.
        router: Its herd.
        benchmark: The benchmark service's key.
        owner: Who owns the datasets that `load` makes.
    """

    def __init__(
        self,
        service: ServiceUnderTest,
        router: RouterDouble,
        benchmark: Identity,
        owner: Identity,
        stack: AsyncExitStack,
    ) -> None:
        self.service = service
        self.router = router
        self.benchmark = benchmark
        self.owner = owner
        self._stack = stack

    async def stub(self, identity: Identity | None = None) -> Stub:
        """A stub of somebody; of the owner, where nobody is named."""
        channel = await self._stack.enter_async_context(
            self.service.channel(identity or self.owner)
        )
        return dataset_pb2_grpc.DatasetServiceStub(channel)

    async def create(
        self, dataset: str = "d", kind: str = "siqa", by: Identity | None = None, **fields: Any
    ) -> Stub:
        """Make a dataset of somebody's; of the owner's, where nobody is named. Gives their stub."""
        stub = await self.stub(by)
        await stub.CreateDataset(dataset_pb2.CreateDatasetRequest(id=dataset, kind=kind, **fields))
        return stub

    async def load(self, content: bytes, dataset: str = "d", **fields: Any) -> Stub:
        """Make a dataset and load JSON Lines into it; gives its owner's stub."""
        stub = await self.create(dataset, **fields)
        await stub.LoadData(
            sending(
                dataset_pb2.LoadOptions(dataset=dataset, format=dataset_pb2.DATA_FORMAT_JSON_LINES),
                [content],
            )
        )
        return stub


@asynccontextmanager
async def running_dataset(
    data_dir: Path, router: RouterDouble, **settings: Any
) -> AsyncIterator[DatasetHarness]:
    """Run the service; run it again on the same directory, with another router, for a restart."""
    owner, benchmark = (
        Identity.load_or_create(data_dir / "people" / f"{name}.json")
        for name in ("owner", "benchmark")
    )
    async with (
        running(
            SERVICE,
            data_dir / "service",
            router_endpoint=router.endpoint,
            router_address=router.identity.address,
            benchmark_address=benchmark.address,
            **settings,
        ) as service,
        AsyncExitStack() as stack,
    ):
        yield DatasetHarness(service, router, benchmark, owner, stack)


async def start(stub: Stub, model: str = MODEL, dataset: str = "d", **fields: Any) -> Any:
    """Start a run; gives its score."""
    request = dataset_pb2.BenchmarkRequest(dataset=dataset, subject=model, **fields)
    return (await stub.Benchmark(request)).score


async def until(
    stub: Stub, run: str, *states: int, done: int = 0, reason_code: str = ""
) -> dataset_pb2.Score:
    """Wait until a run is in one of the states, has so many questions done, and says why."""
    call = stub.WatchScores(dataset_pb2.WatchScoresRequest(runs=[run]))
    async for message in call:
        score = message.score
        if (
            (not states or score.state in states)
            and score.done >= done
            and reason_code in ("", score.reason_code)
        ):
            call.cancel()
            return score
    raise AssertionError("the watch ended")


ENDED = (
    dataset_pb2.RUN_STATE_COMPLETE,
    dataset_pb2.RUN_STATE_FAILED,
    dataset_pb2.RUN_STATE_UNFUNDED,
)


async def evaluated(
    stub: Stub, model: str = MODEL, dataset: str = "d", **fields: Any
) -> dataset_pb2.Score:
    """Start a run and wait for its end."""
    score = await start(stub, model, dataset, **fields)
    return await until(stub, score.run, *ENDED)


async def results(stub: Stub, run: str) -> Sequence[dataset_pb2.ListResultsResponse]:
    """A run's evaluations."""
    return [r async for r in stub.ListResults(dataset_pb2.ListResultsRequest(run=run))]


def stored(harness: DatasetHarness) -> dict[str, list[Any]]:
    """Every row of the service's database."""
    path = harness.service.running.runtime.data_dir / "dataset.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = [
            t for (t,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        return {t: database.execute(f'SELECT * FROM "{t}"').fetchall() for t in tables}


@asynccontextmanager
async def nothing_changes(harness: DatasetHarness) -> AsyncIterator[None]:
    """Nothing is stored and the herd is asked nothing while the block runs."""
    before = stored(harness), len(harness.router.prompts)
    yield
    assert (stored(harness), len(harness.router.prompts)) == before

"""The router alone is killed in the midst of a run, and started again where it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from grpc import aio

from evalpool.channel import open_channel
from evalpool.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.models import ModelStore
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from tests.dataset.dataset_harness import ENDED, lines, results, sending, start, until
from tests.served import Served
from tests.waiting import until as until_it_holds

if TYPE_CHECKING:
    from tests.dataset.dataset_harness import Stub

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

QUESTIONS = 3000
CHUNK = 20
"""Questions that are asked together: so few that the run is many calls and commits."""
IN_FLIGHT = 4 * CHUNK


class Deployment:
    """A router, a dataset service and two workers on the fake engine, each a process.

    Attributes:
        router: The router.
        dataset: The dataset service.
        workers: The workers.
    """

    def __init__(self, directory: Path, models: Path, stack: AsyncExitStack) -> None:
        self.router = Served("router", directory / "router")
        self.dataset = Served("dataset", directory / "dataset")
        self.workers = [Served("worker", directory / f"worker-{n}") for n in (1, 2)]
        self._models = models
        self._stack = stack

    async def start(self) -> None:
        """Start everything, and wait until the workers are in the herd."""
        for served in (self.router, self.dataset, *self.workers):
            self._stack.push_async_callback(served.kill)
        await self.start_router()
        way = (
            *("--router-endpoint", self.router.endpoint),
            *("--router-address", self.router.address),
        )
        await self.dataset.start(
            *way, "--chunk-questions", str(CHUNK), "--concurrent-chunks", str(IN_FLIGHT // CHUNK)
        )
        for worker in self.workers:
            await worker.start(*way, "--engine", "fake", "--models-dir", str(self._models))
        await until_it_holds(self.generations, lambda found: found == [1, 1])

    async def start_router(self) -> None:
        """Start the router, at the endpoint and with the data that it had before, if any."""
        await self.router.start(
            *("--dataset-address", self.dataset.address),
            *("--admitted-workers", ",".join(worker.address for worker in self.workers)),
            # Frozen workers are to be lost with the router, and not before.
            *("--lease-seconds", "600", "--heartbeat-seconds", "0.2"),
        )

    async def generations(self) -> list[int]:
        """The generations of the workers in the herd."""
        stub = self.router_stub(self.router.operator)
        request = router_pb2.ListWorkersRequest()
        listed = await stub.ListWorkers(request, wait_for_ready=True)
        return [worker.generation for worker in listed.workers]

    def router_stub(self, identity: Identity) -> router_pb2_grpc.RouterServiceAsyncStub:
        """The router as somebody sees it."""
        stub: router_pb2_grpc.RouterServiceAsyncStub = router_pb2_grpc.RouterServiceStub(
            self._channel(self.router, identity)
        )
        return stub

    def dataset_stub(self, identity: Identity) -> Stub:
        """The dataset service as somebody sees it."""
        stub: Stub = dataset_pb2_grpc.DatasetServiceStub(self._channel(self.dataset, identity))
        return stub

    def _channel(self, served: Served, identity: Identity) -> aio.Channel:
        channel = open_channel(served.endpoint, identity, served.address)
        self._stack.push_async_callback(channel.close)
        return channel


@pytest.fixture
async def deployment(
    tmp_path: Path, model_store: ModelStore, smollm2_path: Path
) -> AsyncIterator[Deployment]:
    async with AsyncExitStack() as stack:
        made = Deployment(tmp_path, model_store.root, stack)
        await made.start()
        yield made


async def text_of(stub: router_pb2_grpc.RouterServiceAsyncStub, model: str) -> str:
    """What the herd says to a prompt."""
    request = inference_pb2.InferRequest(
        model=inference_pb2.ModelReference(digest=model), prompt="The capital of France is"
    )
    call = stub.Infer(request, wait_for_ready=True)
    return "".join([response.chunk.text async for response in call])


async def test_a_router_killed_in_a_run_is_found_again_and_every_question_counts_once(
    deployment: Deployment, smollm2_path: Path
) -> None:
    model = smollm2_path.name
    somebody = deployment.router_stub(Identity.generate())
    said = await text_of(somebody, model)
    owner = deployment.dataset_stub(Identity.generate())
    await owner.CreateDataset(dataset_pb2.CreateDatasetRequest(id="d", kind="siqa"))
    options = dataset_pb2.LoadOptions(dataset="d", format=dataset_pb2.DATA_FORMAT_JSON_LINES)
    await owner.LoadData(sending(options, [lines(QUESTIONS)]))
    run = (await start(owner, model)).run

    await until(owner, run, done=1)
    for worker in deployment.workers:
        worker.freeze()
    await deployment.router.kill()
    waiting = await until(owner, run, reason_code="UNAVAILABLE")
    stored = {r.question: r for r in await results(owner, run) if r.inference_reference}
    assert 0 < len(stored) < QUESTIONS
    assert waiting.state == dataset_pb2.RUN_STATE_RUNNING
    await deployment.start_router()
    for worker in deployment.workers:
        worker.thaw()

    ended = await until(owner, run, *ENDED)
    assert (ended.state, ended.done, ended.failed) == (dataset_pb2.RUN_STATE_COMPLETE, QUESTIONS, 0)
    found = {r.question: r for r in await results(owner, run)}
    assert sorted(found) == list(range(1, QUESTIONS + 1))
    assert ended.correct == sum(r.correct for r in found.values())
    assert {r.state for r in found.values()} == {dataset_pb2.EVALUATION_STATE_DONE}
    # What was stored was not asked again; of the others only what a worker was at, and once.
    assert {number: found[number] for number in stored} == stored
    again = [r for r in found.values() if r.attempts > 1]
    assert all(r.attempts == 2 for r in again)
    assert len(again) <= IN_FLIGHT
    # The workers have registered again by themselves, and whoever had a channel finds it too.
    assert await deployment.generations() == [2, 2]
    assert await text_of(somebody, model) == said

"""A router with real workers: services of this process, or processes, all on the fake engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from evalpool.identity import Identity
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool_runtime.testing import running
from evalpool_worker import service as worker_service
from evalpool_worker.engine.base import Engine
from evalpool_worker.engine.fake import FakeEngine
from evalpool_worker.settings import WorkerSettings
from tests.router.router_harness import RouterHarness
from tests.router.worker_double import ALL_KINDS
from tests.served import Served
from tests.waiting import until


class Gate:
    """Lets an engine answer so many questions, and no more until it is opened.

    Attributes:
        free: Questions that it answers before.
        opened: Set when it may go on.
        reached: Set when it has come to the gate.
    """

    def __init__(self, free: int = 0) -> None:
        self.free = free
        self.opened = asyncio.Event()
        self.reached = asyncio.Event()

    async def step(self) -> None:
        """Come to the gate, and pass."""
        if self.free:
            self.free -= 1
        elif not self.opened.is_set():
            self.reached.set()
            await self.opened.wait()


class Herd:
    """A router, and real workers of it.

    Attributes:
        router: The router, in this process.
    """

    def __init__(
        self,
        router: RouterHarness,
        directory: Path,
        models: Path,
        stack: AsyncExitStack,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.router = router
        self._directory = directory
        self._models = models
        self._stack = stack
        self._monkeypatch = monkeypatch

    async def in_this_process(self, gate: Gate, *, identity: Identity | None = None) -> Identity:
        """Run a worker whose engine stops at a gate, which is opened at the end; gives its key."""
        key = identity or Identity.generate()

        def engines(settings: WorkerSettings) -> tuple[Callable[[], Engine], str]:
            return partial(FakeEngine, gate.step), "fake 1"

        self._monkeypatch.setattr(worker_service, "_engines", engines)
        await self._admit(key.address)
        await self._stack.enter_async_context(
            running(
                worker_service.SERVICE,
                self._directory / f"worker {id(gate)}",
                identity=key,
                router_endpoint=self.router.service.endpoint,
                router_address=self.router.service.address,
                engine="fake",
                models_dir=self._models,
            )
        )
        self._stack.callback(gate.opened.set)
        return key

    async def process(self, name: str) -> Served:
        """Run a worker as a process, which is killed at the end."""
        served = Served("worker", self._directory / name)
        await self._admit(served.address)
        self._stack.push_async_callback(served.kill)
        await self.start(served)
        return served

    async def start(self, served: Served) -> None:
        """Start a worker's process, and wait until it is in the herd."""
        generation = await self.generation(served.address)
        await served.start(
            *("--router-endpoint", self.router.service.endpoint),
            *("--router-address", self.router.service.address),
            *("--models-dir", str(self._models)),
            *("--engine", "fake"),
        )
        await until(lambda: self.generation(served.address), lambda now: now > generation)

    async def dataset(self) -> router_pb2_grpc.RouterServiceAsyncStub:
        """The router as the dataset service sees it."""
        return await self.router.stub(self.router.dataset)

    async def worker(self, address: str) -> router_pb2.Worker:
        """A worker as the router lists it; empty for one without a lease."""
        operator = await self.router.operator()
        listed = await operator.ListWorkers(router_pb2.ListWorkersRequest())
        return next((w for w in listed.workers if w.address == address), router_pb2.Worker())

    async def generation(self, address: str) -> int:
        """The generation of a worker; 0 for one without a lease."""
        return (await self.worker(address)).generation

    async def unfinished_at(self, address: str) -> int:
        """How many questions a frozen worker is at, once what it had sent has come."""
        before, now = -1, (await self.worker(address)).running
        while now != before:
            before, now = now, (await self.worker(address)).running
        return now

    async def all_but_what_is_at(self, address: str) -> None:
        """Wait until nothing is left to do but what is at one worker."""
        operator = await self.router.operator()

        async def busy() -> tuple[int, set[str]]:
            found = await operator.GetStatistics(router_pb2.GetStatisticsRequest())
            return found.queued, {w.address for w in found.worker_details if w.busy_slots}

        await until(busy, lambda found: found == (0, {address}))

    async def drain(self, address: str, drain: bool) -> None:
        """Give a worker nothing new, or let it take work again."""
        operator = await self.router.operator()
        await operator.DrainWorker(router_pb2.DrainWorkerRequest(worker=address, drain=drain))

    async def ended(self, method: str, code: str) -> float:
        """How many calls of the router have ended with a code."""
        labels = {
            "grpc_service": "evalpool.router.v1.RouterService",
            "grpc_method": method,
            "grpc_type": "unary",
            "grpc_code": code,
        }
        metrics = self.router.service.running.runtime.metrics
        return metrics.get_sample_value("grpc_server_handled_total", labels) or 0.0

    async def _admit(self, address: str) -> None:
        operator = await self.router.operator()
        await operator.AdmitWorker(router_pb2.AdmitWorkerRequest(worker=address, kinds=ALL_KINDS))

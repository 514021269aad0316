"""The worker's place in the herd: register, keep the lease by heartbeats, leave in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import grpc
import structlog

from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool_runtime.protobuf import from_duration

CALL_SECONDS = 5.0
RETRY_SECONDS = 1.0

_KINDS = {
    "evaluate": router_pb2.WORKER_KIND_EVALUATE,
    "chat": router_pb2.WORKER_KIND_CHAT,
    "judge": router_pb2.WORKER_KIND_JUDGE,
}


@dataclass(frozen=True, slots=True)
class Offer:
    """What the worker offers the router.

    Attributes:
        endpoint: Where it can be reached.
        kinds: The kinds of work that it takes.
        slots: Requests that it takes at a time.
        memory_bytes: Memory that it gives to models.
        engine: The engine's name.
        engine_build: The engine's build.
        only_models: Digests of the models that it takes, where it takes no others.
    """

    endpoint: str
    kinds: tuple[str, ...]
    slots: int
    memory_bytes: int
    engine: str
    engine_build: str
    only_models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What the worker is at.

    Attributes:
        busy_slots: Requests under way.
        models: Digests of loaded models.
        computed_tokens: Tokens computed since the start.
    """

    busy_slots: int
    models: tuple[str, ...]
    computed_tokens: int


class Registration:
    """Keeps the worker registered with its router.

    Args:
        stub: The router.
        offer: What the worker offers.
        read: Reads what the worker is at.
        stopping: Set when the worker begins to stop.
    """

    def __init__(
        self,
        stub: router_pb2_grpc.RouterServiceAsyncStub,
        offer: Offer,
        read: Callable[[], Reading],
        stopping: asyncio.Event,
    ) -> None:
        self._stub = stub
        self._offer = offer
        self._read = read
        self._stopping = stopping
        self._instance = uuid4().hex
        self._log = structlog.get_logger("evalpool.worker.registration")
        self.generation = 0
        """The generation of the present registration; 0 without one."""

    async def keep(self) -> None:
        """Stay registered until cancelled; a router that is away is found again."""
        told = None
        while True:
            try:
                await self._register_and_beat()
            except grpc.aio.AioRpcError as error:
                problem = (error.code().name, error.details())
                # Once a problem, not once a try; anew where it had been well in between.
                if problem != told or self.generation:
                    self._log.warning(
                        "the router does not keep this worker; registering again",
                        code=problem[0],
                        detail=problem[1],
                    )
                told = problem
            self.generation = 0
            await asyncio.sleep(RETRY_SECONDS)

    async def leave(self) -> None:
        """Tell the router that the worker goes; a router that is away will notice by itself."""
        if not self.generation:
            return
        try:
            await self._stub.UnregisterWorker(
                router_pb2.UnregisterWorkerRequest(generation=self.generation),
                timeout=CALL_SECONDS,
            )
        except grpc.aio.AioRpcError as error:
            self._log.info("the router was not told of the leave", code=error.code().name)

    async def _register_and_beat(self) -> None:
        reading = self._read()
        response = await self._stub.RegisterWorker(
            router_pb2.RegisterWorkerRequest(
                endpoint=self._offer.endpoint,
                kinds=[_KINDS[kind] for kind in self._offer.kinds],
                slots=self._offer.slots,
                memory_bytes=self._offer.memory_bytes,
                models=reading.models,
                engine=self._offer.engine,
                engine_build=self._offer.engine_build,
                instance=self._instance,
                only_models=self._offer.only_models,
            ),
            timeout=CALL_SECONDS,
        )
        self.generation = response.generation
        interval = from_duration(response.heartbeat_interval)
        lease = from_duration(response.lease)
        self._log.info("registered", generation=self.generation, lease=lease.total_seconds())
        await self._beat(interval, lease)

    async def _beat(self, interval: timedelta, lease: timedelta) -> None:
        loop = asyncio.get_running_loop()
        kept_until = loop.time() + lease.total_seconds()
        draining = False
        while True:
            await self._wait(interval.total_seconds(), stop_told=draining)
            draining = self._stopping.is_set()
            reading = self._read()
            try:
                await self._stub.Heartbeat(
                    router_pb2.HeartbeatRequest(
                        generation=self.generation,
                        busy_slots=reading.busy_slots,
                        models=reading.models,
                        computed_tokens=reading.computed_tokens,
                        draining=draining,
                    ),
                    timeout=CALL_SECONDS,
                )
                kept_until = loop.time() + lease.total_seconds()
            except grpc.aio.AioRpcError as error:
                passing = error.code() in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                )
                if not passing or loop.time() > kept_until:
                    raise

    async def _wait(self, seconds: float, *, stop_told: bool) -> None:
        """Wait for the next heartbeat; the stop is told at once, and after that as usual."""
        if stop_told:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

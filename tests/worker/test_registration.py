"""A worker keeps its place in the herd by heartbeats, finds it again, and leaves in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
import structlog

from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool_runtime.protobuf import duration
from evalpool_worker import registration
from evalpool_worker.registration import Offer, Reading, Registration

ONLY = ("cd" * 32,)
OFFER = Offer("127.0.0.1:50055", ("evaluate", "chat"), 4, 2**30, "fake", "fake 1", ONLY)


class RouterDouble(router_pb2_grpc.RouterServiceServicer):
    """Takes registrations and heartbeats, and refuses those that a test wants refused."""

    def __init__(self) -> None:
        self.registered: list[router_pb2.RegisterWorkerRequest] = []
        self.beats: asyncio.Queue[router_pb2.HeartbeatRequest] = asyncio.Queue()
        self.left: list[int] = []
        self.refusals: list[grpc.StatusCode] = []
        self.turned_away = 0
        self.lease = timedelta(seconds=600)
        self.interval = timedelta(milliseconds=1)

    async def RegisterWorker(
        self, request: router_pb2.RegisterWorkerRequest, context: Any
    ) -> router_pb2.RegisterWorkerResponse:
        if self.turned_away:
            self.turned_away -= 1
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not admitted")
        self.registered.append(request)
        self.beats.put_nowait(router_pb2.HeartbeatRequest())
        return router_pb2.RegisterWorkerResponse(
            generation=len(self.registered),
            lease=duration(self.lease),
            heartbeat_interval=duration(self.interval),
        )

    async def Heartbeat(
        self, request: router_pb2.HeartbeatRequest, context: Any
    ) -> router_pb2.HeartbeatResponse:
        if self.refusals:
            await context.abort(self.refusals.pop(0), "refused")
        self.beats.put_nowait(request)
        return router_pb2.HeartbeatResponse()

    async def UnregisterWorker(
        self, request: router_pb2.UnregisterWorkerRequest, context: Any
    ) -> router_pb2.UnregisterWorkerResponse:
        self.left.append(request.generation)
        return router_pb2.UnregisterWorkerResponse()

    async def beat_of(self, generation: int) -> router_pb2.HeartbeatRequest:
        """The next heartbeat of a generation."""
        while (beat := await self.beats.get()).generation != generation:
            pass
        return beat


class World:
    """A router, and a worker's registration with it."""

    def __init__(self, router: RouterDouble, stub: Any) -> None:
        self.router = router
        self.stopping = asyncio.Event()
        self.reading = Reading(1, ("ab" * 32,), 7)
        self.registration = Registration(stub, OFFER, lambda: self.reading, self.stopping)


@asynccontextmanager
async def herd() -> AsyncIterator[World]:
    router = RouterDouble()  # type: ignore[abstract]
    server = grpc.aio.server()
    router_pb2_grpc.add_RouterServiceServicer_to_server(router, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        world = World(router, router_pb2_grpc.RouterServiceStub(channel))
        keeping = asyncio.create_task(world.registration.keep())
        try:
            yield world
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await server.stop(None)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    monkeypatch.setattr(registration, "RETRY_SECONDS", 0)


async def test_it_offers_what_it_has_and_says_what_it_is_at() -> None:
    async with herd() as world:
        beat = await world.router.beat_of(1)
        [offered] = world.router.registered
        assert offered.endpoint == OFFER.endpoint
        assert list(offered.kinds) == [
            router_pb2.WORKER_KIND_EVALUATE,
            router_pb2.WORKER_KIND_CHAT,
        ]
        assert (offered.slots, offered.memory_bytes) == (4, 2**30)
        assert (offered.engine, offered.engine_build) == ("fake", "fake 1")
        assert tuple(offered.only_models) == ONLY
        assert (beat.busy_slots, list(beat.models), beat.computed_tokens) == (1, ["ab" * 32], 7)
        assert not beat.draining
        assert world.registration.generation == 1
        world.reading = Reading(2, (), 9)
        while (beat := await world.router.beat_of(1)).computed_tokens != 9:
            pass
        assert beat.busy_slots == 2


async def test_a_lost_lease_is_taken_anew_by_the_same_instance() -> None:
    async with herd() as world:
        await world.router.beat_of(1)
        world.router.refusals.append(grpc.StatusCode.ABORTED)
        await world.router.beat_of(2)
        assert world.registration.generation == 2
        first, second = world.router.registered
        assert first.instance == second.instance


@pytest.fixture
def warnings_too() -> Iterator[None]:
    """Logs warnings, which tests otherwise leave out."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("warnings_too")
async def test_a_router_that_turns_it_away_again_and_again_is_in_the_log_once() -> None:
    with structlog.testing.capture_logs() as log:
        async with herd() as world:
            world.router.turned_away = 5
            await world.router.beat_of(1)
    warnings = [each["detail"] for each in log if each["log_level"] == "warning"]
    assert warnings == ["not admitted"]


async def test_a_router_that_is_away_for_less_than_the_lease_keeps_the_worker() -> None:
    async with herd() as world:
        await world.router.beat_of(1)
        world.router.refusals += [grpc.StatusCode.UNAVAILABLE] * 3
        while world.router.refusals:
            await world.router.beats.get()
        await world.router.beat_of(1)
        assert len(world.router.registered) == 1


async def test_a_lease_that_has_lapsed_meanwhile_is_taken_anew() -> None:
    async with herd() as world:
        world.router.lease = timedelta(0)
        world.router.refusals += [grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE]
        await world.router.beat_of(3)
        assert len(world.router.registered) == 3


async def test_a_stop_is_told_at_once_and_then_the_worker_leaves() -> None:
    async with herd() as world:
        await world.router.beat_of(1)
        # The next registration has to wait for an hour before its heartbeat is due.
        world.router.interval = timedelta(hours=1)
        world.router.refusals.append(grpc.StatusCode.ABORTED)
        while len(world.router.registered) < 2:
            await world.router.beats.get()
        world.stopping.set()
        assert (await world.router.beat_of(2)).draining
        await world.registration.leave()
        assert world.router.left == [2]


async def test_leaving_needs_no_router() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        stub: Any = router_pb2_grpc.RouterServiceStub(channel)
        alone = Registration(stub, OFFER, lambda: Reading(0, (), 0), asyncio.Event())
        await alone.leave()
        alone.generation = 1
        await alone.leave()

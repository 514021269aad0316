"""Services from their start to their stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from sqlalchemy import text

from evalpool.endpoints import METRICS_PORT_OFFSET
from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool_runtime import service as service_module
from evalpool_runtime.database import Database
from evalpool_runtime.errors import Unavailable, reasons
from evalpool_runtime.service import Runtime, ServiceDefinition
from evalpool_runtime.settings import ServiceSettings
from evalpool_runtime.start import CannotStart
from evalpool_runtime.testing import running
from tests.runtime.cable import cable_to
from tests.runtime.small_service import GRPC_SERVICE, SmallServicer, definition

FOR_EVER = 3600.0
"""A grace that no test would live to see the end of."""


@pytest.fixture
def servicer() -> SmallServicer:
    return SmallServicer()  # type: ignore[abstract]


def building(build: Any, port: int = 0) -> ServiceDefinition[ServiceSettings]:
    return ServiceDefinition("small", port, ServiceSettings, GRPC_SERVICE, build)


def free_port() -> int:
    """A port that is free together with its metrics' port."""
    while True:
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError, OverflowError):
            port: int = probes.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[
                1
            ]
            probes.enter_context(socket.create_server(("127.0.0.1", port + METRICS_PORT_OFFSET)))
            return port


async def test_the_stop_lets_a_call_under_way_end(servicer: SmallServicer, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def until_the_stop(_request: Any) -> token_pb2.GetBalanceResponse:
        begun.set()
        await service.running.runtime.stopping.wait()
        return token_pb2.GetBalanceResponse(balance="7")

    servicer.behaviour = until_the_stop
    async with running(definition(servicer), tmp_path, shutdown_grace=FOR_EVER) as service:
        channel = aio.insecure_channel(service.endpoint)
        token = Identity.generate().token(service.address)
        call = token_pb2_grpc.TokenServiceStub(channel).GetBalance(
            token_pb2.GetBalanceRequest(), metadata=[("authorization", f"Bearer {token}")]
        )
        await begun.wait()

    assert (await call).balance == "7"
    await channel.close()


async def test_a_stream_of_reflection_does_not_hold_up_the_stop(
    servicer: SmallServicer, tmp_path: Path
) -> None:
    async with running(definition(servicer), tmp_path, shutdown_grace=FOR_EVER) as service:
        channel = aio.insecure_channel(service.endpoint)
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        services = (await call.read()).list_services_response.service
        assert GRPC_SERVICE in {each.name for each in services}

    assert await call.read() is aio.EOF
    await channel.close()


async def test_a_call_that_is_cut_off_still_has_the_database_to_clean_up_with(
    servicer: SmallServicer, tmp_path: Path
) -> None:
    cleaned: list[object] = []
    opened: list[Database] = []

    async def build(runtime: Runtime[ServiceSettings]) -> None:
        await definition(servicer).build(runtime)
        opened.append(Database.open(f"sqlite:///{tmp_path / 'small.db'}"))
        runtime.on_stop(opened[0].close)

    async def endless(_request: Any) -> AsyncIterator[token_pb2.WatchNoticesResponse]:
        try:
            yield token_pb2.WatchNoticesResponse()
            await asyncio.Event().wait()
        finally:
            cleaned.append(await opened[0].write(lambda c: c.scalar(text("SELECT 1"))))

    servicer.stream = endless
    async with running(building(build), tmp_path, shutdown_grace=0.0) as service:
        channel = aio.insecure_channel(service.endpoint)
        token = Identity.generate().token(service.address)
        call = token_pb2_grpc.TokenServiceStub(channel).WatchNotices(
            token_pb2.WatchNoticesRequest(), metadata=[("authorization", f"Bearer {token}")]
        )
        await call.read()

    assert cleaned == [1]
    await channel.close()


async def test_a_handler_that_never_ends_does_not_hold_up_the_stop(
    servicer: SmallServicer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "CLEAN_UP_SECONDS", 0.0)
    let_go = asyncio.Event()

    async def stubborn(_request: Any) -> AsyncIterator[token_pb2.WatchNoticesResponse]:
        try:
            yield token_pb2.WatchNoticesResponse()
            await asyncio.Event().wait()
        finally:
            await let_go.wait()

    servicer.stream = stubborn
    async with running(definition(servicer), tmp_path, shutdown_grace=0.0) as service:
        channel = aio.insecure_channel(service.endpoint)
        token = Identity.generate().token(service.address)
        call = token_pb2_grpc.TokenServiceStub(channel).WatchNotices(
            token_pb2.WatchNoticesRequest(), metadata=[("authorization", f"Bearer {token}")]
        )
        await call.read()

    assert not servicer.left.is_set()
    let_go.set()
    await servicer.left.wait()
    await channel.close()


async def test_what_a_service_does_at_its_stop_is_done_in_the_opposite_order_and_in_any_case(
    tmp_path: Path,
) -> None:
    done: list[str] = []

    async def build(runtime: Runtime[ServiceSettings]) -> None:
        async def action(name: str) -> None:
            done.append(name)
            if name == "second":
                raise OSError("the disk is gone")

        for name in ("first", "second", "third"):
            runtime.on_stop(lambda name=name: action(name))  # type: ignore[misc]

    with pytest.raises(OSError, match="the disk is gone"):
        async with running(building(build), tmp_path):
            pass

    assert done == ["third", "second", "first"]


async def test_a_start_that_fails_undoes_what_it_began(tmp_path: Path) -> None:
    ended: list[str] = []

    async def build(runtime: Runtime[ServiceSettings]) -> None:
        async def loop() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("loop")

        async def close() -> None:
            ended.append("database")

        runtime.on_stop(close)
        runtime.spawn("loop", loop)
        await asyncio.sleep(0)
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            async with running(building(build), tmp_path):
                raise AssertionError("it was started")

    assert ended == ["loop", "database"] * 2


async def test_a_service_that_is_not_told_where_takes_its_own_port_and_the_one_of_its_metrics(
    servicer: SmallServicer, tmp_path: Path
) -> None:
    port = free_port()
    own = building(definition(servicer).build, port)

    async with running(own, tmp_path, listen=None, metrics_listen=None) as service:
        assert service.endpoint == f"127.0.0.1:{port}"
        assert service.running.metrics_endpoint == f"127.0.0.1:{port + METRICS_PORT_OFFSET}"


async def test_on_a_free_port_the_metrics_take_a_free_one_too(
    servicer: SmallServicer, tmp_path: Path
) -> None:
    async with running(definition(servicer), tmp_path, metrics_listen=None) as service:
        ports = [
            int(each.removeprefix("127.0.0.1:"))
            for each in (service.endpoint, service.running.metrics_endpoint)
        ]

    assert 0 not in ports


async def test_a_taken_port_of_metrics_is_named_and_the_data_directory_is_free_again(
    servicer: SmallServicer, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(CannotStart, match=f"^{taken} cannot be listened on for metrics"):
            async with running(definition(servicer), tmp_path, metrics_listen=taken):
                raise AssertionError("it was started")

    async with running(definition(servicer), tmp_path) as service:
        assert service.running.metrics_endpoint == ""


async def test_a_taken_port_is_named(servicer: SmallServicer, tmp_path: Path) -> None:
    async with running(definition(servicer), tmp_path / "one") as service:
        settings = ServiceSettings.load(
            listen=service.endpoint, data_dir=tmp_path / "two", operator=service.operator.address
        )
        with pytest.raises(CannotStart, match=f"^{service.endpoint} cannot be listened on"):
            async with service_module.running_service(definition(servicer), settings):
                raise AssertionError("it was started")


async def test_a_peer_or_database_that_a_start_needs_and_lacks_is_told_in_its_own_words(
    tmp_path: Path,
) -> None:
    async def build(_runtime: Runtime[ServiceSettings]) -> None:
        raise Unavailable(reasons.ERROR_REASON_UNAVAILABLE, "the database is out of reach")

    with pytest.raises(CannotStart) as caught:
        async with running(building(build), tmp_path):
            raise AssertionError("it was started")

    assert str(caught.value) == "the small service cannot start: the database is out of reach"


async def test_the_stream_of_a_client_that_was_cut_off_ends(
    servicer: SmallServicer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "KEEPALIVE_SECONDS", 0.05)
    monkeypatch.setattr(service_module, "KEEPALIVE_ANSWER_SECONDS", 0.05)

    async def endless(_request: Any) -> AsyncIterator[token_pb2.WatchNoticesResponse]:
        yield token_pb2.WatchNoticesResponse()
        await asyncio.Event().wait()

    servicer.stream = endless
    async with (
        running(definition(servicer), tmp_path) as service,
        cable_to(service.endpoint) as cable,
    ):
        channel = aio.insecure_channel(cable.endpoint)
        token = Identity.generate().token(service.address)
        call = token_pb2_grpc.TokenServiceStub(channel).WatchNotices(
            token_pb2.WatchNoticesRequest(), metadata=[("authorization", f"Bearer {token}")]
        )
        await call.read()

        cable.cut()

        await servicer.left.wait()
        await channel.close()

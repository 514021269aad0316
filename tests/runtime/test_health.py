"""The health check, by a real client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from evalpool.channel import open_channel
from evalpool.errors import CallError
from evalpool_runtime.testing import ServiceUnderTest, running
from tests.runtime.small_service import GRPC_SERVICE, SmallServicer, definition

messages: Any = health_pb2  # the published types know no List
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ServiceUnderTest]:
    servicer = SmallServicer()  # type: ignore[abstract]
    async with running(definition(servicer), tmp_path) as made:
        yield made


@pytest.fixture
async def health(service: ServiceUnderTest) -> AsyncIterator[Any]:
    async with open_channel(service.endpoint, retries=False) as channel:
        yield health_pb2_grpc.HealthStub(channel)


def of(name: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=name)


@pytest.mark.parametrize("name", ["", GRPC_SERVICE])
async def test_the_server_and_its_service_serve(health: Any, name: str) -> None:
    assert (await health.Check(of(name))).status == SERVING


async def test_another_service_is_not_found(health: Any) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await health.Check(of("evalpool.bank.v1.BankService"))

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert f"there is {GRPC_SERVICE}" in str(caught.value.details())


async def test_all_services_are_listed(health: Any) -> None:
    listed = await health.List(messages.HealthListRequest())

    assert {name: each.status for name, each in listed.statuses.items()} == {
        "": SERVING,
        GRPC_SERVICE: SERVING,
    }


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("", [SERVING, NOT_SERVING]),
        (GRPC_SERVICE, [SERVING, NOT_SERVING]),
        ("x", [SERVICE_UNKNOWN]),
    ],
)
async def test_a_watch_tells_that_the_server_stops_and_ends(
    tmp_path: Path, name: str, statuses: list[int]
) -> None:
    servicer = SmallServicer()  # type: ignore[abstract]
    async with running(definition(servicer), tmp_path, shutdown_grace=3600.0) as service:
        channel = open_channel(service.endpoint, retries=False)
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(of(name))
        seen = [(await watch.read()).status]

    seen += [(await watch.read()).status for _ in statuses[1:]]
    with pytest.raises(aio.AioRpcError) as caught:
        await watch.read()

    assert seen == statuses
    error = CallError.of(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    await channel.close()

"""The small service, running, and stubs of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2_grpc
from evalpool_runtime.testing import ServiceUnderTest, running
from tests.runtime.small_service import SmallServicer, definition


@pytest.fixture
def servicer() -> SmallServicer:
    return SmallServicer()  # type: ignore[abstract]


@pytest.fixture
async def service(servicer: SmallServicer, tmp_path: Path) -> AsyncIterator[ServiceUnderTest]:
    async with running(definition(servicer), tmp_path) as made:
        yield made


@pytest.fixture
async def stub(service: ServiceUnderTest) -> AsyncIterator[token_pb2_grpc.TokenServiceAsyncStub]:
    async with service.channel(Identity.generate()) as channel:
        yield token_pb2_grpc.TokenServiceStub(channel)


@pytest.fixture
async def anonymous(
    service: ServiceUnderTest,
) -> AsyncIterator[token_pb2_grpc.TokenServiceAsyncStub]:
    async with service.channel(None) as channel:
        yield token_pb2_grpc.TokenServiceStub(channel)

"""What tests of services need: the real service on a free port, and a channel to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from grpc import aio

from evalpool.channel import open_channel
from evalpool.identity import Identity
from evalpool_runtime.clock import Clock
from evalpool_runtime.service import RunningService, ServiceDefinition, running_service
from evalpool_runtime.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True, slots=True)
class ServiceUnderTest:
    """A real service on 127.0.0.1.

    Attributes:
        running: The service.
        operator: The key of its operator.
    """

    running: RunningService
    operator: Identity

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return self.running.endpoint

    @property
    def address(self) -> str:
        """Its address."""
        return self.running.address

    @asynccontextmanager
    async def channel(self, identity: Identity | None) -> AsyncIterator[aio.Channel]:
        """A channel whose calls an identity signs; None signs nothing."""
        channel = open_channel(self.endpoint, identity, self.address, retries=False)
        try:
            yield channel
        finally:
            await channel.close()


@asynccontextmanager
async def running(
    definition: ServiceDefinition[S],
    data_dir: Path,
    *,
    clock: Clock | None = None,
    identity: Identity | None = None,
    operator: Identity | None = None,
    **settings: Any,
) -> AsyncIterator[ServiceUnderTest]:
    """Run a real service on 127.0.0.1, port 0, without metrics unless told where.

    Args:
        definition: Which service.
        data_dir: Its data directory; run again on the same one to test a restart.
        clock: Default: the machine's.
        identity: Its key. Default: the one in the data directory.
        operator: Its operator's key. Default: a new one, or the one in the data directory.
        settings: Further settings.
    """
    operator = operator or Identity.load_or_create(data_dir / "keys" / "operator.json")
    made = definition.settings_type.load(
        data_dir=data_dir,
        operator=operator.address,
        **{"listen": "127.0.0.1:0", "metrics_listen": "", "shutdown_grace": 1.0, **settings},
    )
    async with running_service(definition, made, clock=clock, identity=identity) as service:
        yield ServiceUnderTest(service, operator)

"""The health check of a server, grpc.health.v1.

Written here because grpcio-health-checking's servicer answers no `List`, ends no watch when the
service stops, and holds its lock while it writes to a watch, so that one client that reads nothing
can keep a service from stopping.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from evalpool_runtime.errors import Unavailable, reasons

SERVICE_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_Response = health_pb2.HealthCheckResponse
# The published types know neither these messages nor the enumeration's values as a type.
_messages: Any = health_pb2


class Health(health_pb2_grpc.HealthServicer):
    """Tells whether a server serves: it does from its first call until it begins to stop.

    Args:
        service: The full name of the server's gRPC service; "" stands for the server.
        stopping: Set when the server begins to stop.
    """

    def __init__(self, service: str, stopping: asyncio.Event) -> None:
        self._services = ("", service)
        self._stopping = stopping

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> _Response:
        """The status of one service."""
        if request.service not in self._services:
            # The protocol's own answer: a client that asks for it knows no reasons of ours.
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"service: there is none of this name here; there is {self._services[1]}",
            )
        return _Response(status=self._status())

    async def List(self, request: Any, context: Any) -> Any:
        """The status of every service."""
        return _messages.HealthListResponse(
            statuses={name: _Response(status=self._status()) for name in self._services}
        )

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncIterator[_Response]:
        """The status of one service, now and when the server begins to stop."""
        is_known = request.service in self._services
        yield _Response(status=self._status() if is_known else _Response.SERVICE_UNKNOWN)
        if not self._stopping.is_set():
            await self._stopping.wait()
            if is_known:
                yield _Response(status=self._status())
        raise Unavailable(
            reasons.ERROR_REASON_UNAVAILABLE,
            "the service is stopping; watch again at once",
            retry_after=1.0,
        )

    def _status(self) -> Any:
        return _Response.NOT_SERVING if self._stopping.is_set() else _Response.SERVING

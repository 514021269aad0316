"""Server reflection, made fit for `grpcurl describe package.Service.Method` and for a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc import aio
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

T = TypeVar("T")

SERVICE_NAME: str = reflection.SERVICE_NAME


class _PoolWithMethods:
    """The default descriptor pool; a method is looked for by its service, which the pool knows."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            found = self._pool.FindServiceByName(service)
            if method not in found.methods_by_name:
                raise
            return found.file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


class _Reflection(reflection_pb2_grpc.ServerReflectionServicer):
    """Answers until its client has asked everything, or the server begins to stop."""

    def __init__(self, service_names: tuple[str, ...], stopping: asyncio.Event) -> None:
        pool: Any = _PoolWithMethods()
        self._servicer: Any = reflection.aio.ReflectionServicer(service_names, pool=pool)
        self._stopping = stopping

    async def ServerReflectionInfo(
        self, request_iterator: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        """Answer each question about the contract."""
        requests = until(self._stopping, request_iterator)
        async for response in self._servicer.ServerReflectionInfo(requests, context):
            yield response


async def until(end: asyncio.Event, items: AsyncIterator[T]) -> AsyncIterator[T]:
    """Items as they come, until there are no more or an event is set."""
    ended = asyncio.ensure_future(end.wait())
    following: asyncio.Future[T] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(items))
            await asyncio.wait({following, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                return
            try:
                item = following.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        ended.cancel()
        if following is not None:
            following.cancel()


def enable_reflection(
    service_names: tuple[str, ...], server: aio.Server, stopping: asyncio.Event
) -> None:
    """Add the reflection service to a server.

    Args:
        service_names: What the server tells that it has.
        server: The server.
        stopping: Set when the server begins to stop; streams end then.
    """
    add: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
    add(_Reflection(service_names, stopping), server)

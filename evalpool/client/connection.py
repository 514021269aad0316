"""One user's connection to a deployment."""

from __future__ import annotations

import asyncio
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from grpc import aio

from evalpool.benchmark.v1 import benchmark_pb2, benchmark_pb2_grpc
from evalpool.channel import open_channel
from evalpool.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from evalpool.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from evalpool.endpoints import Endpoints
from evalpool.identity import Identity
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool.wallet import AddressBook, Wallets
from evalpool.worker.v1 import worker_pb2, worker_pb2_grpc

DEADLINE = 60.0
"""Seconds that a call with one answer may take unless it says otherwise."""

STREAM_DEADLINE = 24 * 3600.0
"""Seconds that a stream may last unless the call says otherwise."""

_INFO: dict[str, tuple[Any, Any]] = {
    "token": (token_pb2_grpc.TokenServiceStub, token_pb2.GetInfoRequest),
    "benchmark": (benchmark_pb2_grpc.BenchmarkServiceStub, benchmark_pb2.GetInfoRequest),
    "dataset": (dataset_pb2_grpc.DatasetServiceStub, dataset_pb2.GetInfoRequest),
    "router": (router_pb2_grpc.RouterServiceStub, router_pb2.GetInfoRequest),
    "worker": (worker_pb2_grpc.WorkerServiceStub, worker_pb2.GetInfoRequest),
    "embedding": (embedding_pb2_grpc.EmbeddingServiceStub, embedding_pb2.GetInfoRequest),
}


class Client:
    """Typed stubs of the six services, signed by one identity.

    The stubs raise `grpc.aio.AioRpcError`; `evalpool.errors.CallError.of` reads its details.

    Args:
        identity: Who calls. Default: the user's default wallet, made on first use.
        endpoints: Where the services are. Default: the environment's, or this machine's ports.
        addresses: Addresses of servers met before. Default: the user's address book.
    """

    def __init__(
        self,
        identity: Identity | None = None,
        *,
        endpoints: Endpoints | None = None,
        addresses: AddressBook | None = None,
    ) -> None:
        self.identity = identity or Wallets().get()
        self.endpoints = endpoints or Endpoints.from_environment()
        self._addresses = addresses or AddressBook()
        self._channels: dict[str, aio.Channel] = {}
        self._learning = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Use as a context manager; channels open at the first call."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the channels."""
        await self.close()

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    @cached_property
    def token(self) -> token_pb2_grpc.TokenServiceAsyncStub:
        """The ledger."""
        return token_pb2_grpc.TokenServiceStub(self._channel("token"))

    @cached_property
    def benchmark(self) -> benchmark_pb2_grpc.BenchmarkServiceAsyncStub:
        """Pools, entries, leaderboards."""
        return benchmark_pb2_grpc.BenchmarkServiceStub(self._channel("benchmark"))

    @cached_property
    def dataset(self) -> dataset_pb2_grpc.DatasetServiceAsyncStub:
        """Questions, runs, scores."""
        return dataset_pb2_grpc.DatasetServiceStub(self._channel("dataset"))

    @cached_property
    def router(self) -> router_pb2_grpc.RouterServiceAsyncStub:
        """The herd."""
        return router_pb2_grpc.RouterServiceStub(self._channel("router"))

    @cached_property
    def worker(self) -> worker_pb2_grpc.WorkerServiceAsyncStub:
        """One worker."""
        return worker_pb2_grpc.WorkerServiceStub(self._channel("worker"))

    @cached_property
    def embedding(self) -> embedding_pb2_grpc.EmbeddingServiceAsyncStub:
        """Document sets."""
        return embedding_pb2_grpc.EmbeddingServiceStub(self._channel("embedding"))

    async def address(self, service: str) -> str:
        """The address of a service: from the address book, or asked for and remembered.

        Raises:
            AddressMismatch: It was another one before.
            grpc.aio.AioRpcError: The service cannot be reached.
        """
        endpoint = self.endpoints.of(service)
        async with self._learning:
            known = self._addresses.get(endpoint)
            if known is None:
                known = await self.ask_address(service)
                self._addresses.learn(endpoint, known)
        return known

    async def ask_address(self, service: str) -> str:
        """The address that a service itself gives now."""
        stub, request = _INFO[service]
        async with open_channel(self.endpoints.of(service)) as channel:
            response = await stub(channel).GetInfo(request(), timeout=10)
        return str(response.info.address)

    def _channel(self, service: str) -> aio.Channel:
        if service not in self._channels:
            self._channels[service] = open_channel(
                self.endpoints.of(service),
                self.identity,
                lambda: self.address(service),
                deadline=DEADLINE,
                stream_deadline=STREAM_DEADLINE,
            )
        return self._channels[service]

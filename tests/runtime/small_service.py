"""A service that is small enough to see through: the token contract with answers of the test's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool_runtime.call import Call, current_call
from evalpool_runtime.service import Runtime, ServiceDefinition
from evalpool_runtime.settings import ServiceSettings

GRPC_SERVICE = "evalpool.token.v1.TokenService"
UNLISTED = "/evalpool.test.v1.UnlistedService/Do"

Behaviour = Callable[[Any], Awaitable[Any]]
Stream = Callable[[Any], AsyncIterator[Any]]


class SmallServicer(token_pb2_grpc.TokenServiceServicer):
    """Does what a test says.

    Attributes:
        behaviour: What GetBalance and GetInfo do.
        stream: What WatchNotices does.
        calls: The calls that reached it.
    """

    def __init__(self) -> None:
        self.behaviour: Behaviour = self._balance
        self.stream: Stream = self._nothing
        self.calls: list[Call] = []
        self.left = asyncio.Event()

    async def GetInfo(self, request: Any, context: Any) -> token_pb2.GetInfoResponse:
        self.calls.append(current_call())
        await self.behaviour(request)
        return token_pb2.GetInfoResponse(name="small")

    async def GetBalance(self, request: Any, context: Any) -> Any:
        self.calls.append(current_call())
        return await self.behaviour(request)

    async def WatchNotices(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.calls.append(current_call())
        try:
            async for response in self.stream(request):
                yield response
        finally:
            self.left.set()

    async def _balance(self, request: Any) -> token_pb2.GetBalanceResponse:
        return token_pb2.GetBalanceResponse(balance="5")

    async def _nothing(self, request: Any) -> AsyncIterator[Any]:
        for _ in ():
            yield


def definition(servicer: SmallServicer) -> ServiceDefinition[ServiceSettings]:
    """The service around a servicer, with one method besides that no table lists."""

    async def build(runtime: Runtime[ServiceSettings]) -> None:
        token_pb2_grpc.add_TokenServiceServicer_to_server(servicer, runtime.server)

        async def unlisted(request: bytes, context: Any) -> bytes:
            raise AssertionError("a method that is not in the table was served")

        service, _, method = UNLISTED.lstrip("/").partition("/")
        runtime.server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    service, {method: grpc.unary_unary_rpc_method_handler(unlisted)}
                ),
            )
        )

    return ServiceDefinition(
        name="small",
        port=0,
        settings_type=ServiceSettings,
        grpc_service=GRPC_SERVICE,
        build=build,
    )

"""A running token service, people who have units, and their stubs to it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool_runtime.testing import ServiceUnderTest

if TYPE_CHECKING:
    from evalpool.token.v1.token_pb2_grpc import TokenServiceAsyncStub


class Ledger:
    """A running token service and people who have stubs to it."""

    def __init__(self, service: ServiceUnderTest, stack: AsyncExitStack) -> None:
        self.service = service
        self.stack = stack

    async def stub(self, identity: Identity | None) -> TokenServiceAsyncStub:
        channel = await self.stack.enter_async_context(self.service.channel(identity))
        return token_pb2_grpc.TokenServiceStub(channel)

    async def rich(self, quantity: int = 1000) -> tuple[Identity, TokenServiceAsyncStub]:
        person = Identity.generate()
        operator = await self.stub(self.service.operator)
        await operator.Mint(
            token_pb2.MintRequest(
                recipient=person.address, quantity=str(quantity), request_id=person.address
            )
        )
        return person, await self.stub(person)


async def balance(stub: TokenServiceAsyncStub) -> int:
    return int((await stub.GetBalance(token_pb2.GetBalanceRequest())).balance)


def transfer(recipient: Identity, quantity: str = "1", request_id: str = "r") -> Any:
    return token_pb2.TransferRequest(
        recipient=recipient.address, quantity=quantity, request_id=request_id
    )

"""A ledger, a router with prices, and somebody with money."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import aio

from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool_runtime.clock import SystemClock
from evalpool_runtime.testing import ServiceUnderTest, running
from evalpool_token.service import SERVICE as TOKEN
from tests.router.router_harness import RouterHarness, error_of, field_of, running_router

PRICES = {"base_fee": 5, "token_fee": 2}
USED = 5 + 2 * (7 + 2)
"""What the double's answer costs at these prices."""

MONEY = 10**15


class LaterClock(SystemClock):
    """The machine's clock, but later by as much as it is told."""

    later = timedelta()

    def now(self) -> datetime:
        return super().now() + self.later


class Later(Identity):
    """A key that signs by a clock of the test's."""

    clock: LaterClock

    @classmethod
    def by(cls, clock: LaterClock, identity: Identity) -> Self:
        made = cls(identity._key)
        made.clock = clock
        return made

    def token(self, audience: str, **_: Any) -> str:
        return super().token(audience, now=lambda: self.clock.now().timestamp())

    def reusable_token(self, audience: str, **_: Any) -> str:
        return self.token(audience)


class Market:
    """A ledger, a router with prices, and a caller with money.

    Attributes:
        clock: Everybody's clock but that of the workers.
        payer: Who has money.
        ledger: The token service.
    """

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.clock = LaterClock()
        self.payer: Identity = self._person(Identity.generate())
        self._directory = directory
        self._stack = stack
        self._router = self._person(
            Identity.load_or_create(directory / "router" / "keys" / "router.json")
        )
        self.ledger: ServiceUnderTest

    @property
    def router_address(self) -> str:
        return self._router.address

    async def start(self) -> None:
        self.ledger = await self._stack.enter_async_context(
            running(TOKEN, self._directory / "token", clock=self.clock)
        )
        await self.pay_with(self.payer)

    async def pay_with(self, payer: Identity) -> None:
        """Let holds be made with this key, which gets money."""
        self.payer = self._person(payer)
        minter = await self.token(self.ledger.operator)
        await minter.Mint(
            token_pb2.MintRequest(
                recipient=payer.address, quantity=str(MONEY), request_id=payer.address
            )
        )

    def router(
        self, *, token_endpoint: str = "", **settings: Any
    ) -> AbstractAsyncContextManager[RouterHarness]:
        return running_router(
            self._directory / "router",
            clock=self.clock,
            identity=self._router,
            token_endpoint=token_endpoint or self.ledger.endpoint,
            token_address=self.ledger.address,
            **{**PRICES, **settings},
        )

    async def token(self, identity: Identity) -> token_pb2_grpc.TokenServiceAsyncStub:
        channel = await self._stack.enter_async_context(self.ledger.channel(identity))
        stub: token_pb2_grpc.TokenServiceAsyncStub = token_pb2_grpc.TokenServiceStub(channel)
        return stub

    async def hold(
        self, quantity: int = 100_000, *, seconds: int = 100_000, recipient: str = ""
    ) -> str:
        response = await (await self.token(self.payer)).Hold(
            token_pb2.HoldRequest(
                recipient=recipient or self.router_address,
                quantity=str(quantity),
                time_to_live=Duration(seconds=seconds),
                request_id=str(uuid4()),
            )
        )
        return response.hold.id

    async def look(self, hold: str) -> token_pb2.HeldUnits:
        """The hold as it is."""
        stub = await self.token(self.payer)
        return (await stub.GetHold(token_pb2.GetHoldRequest(id=hold))).hold

    async def settled(self, hold: str) -> token_pb2.HeldUnits:
        """The hold, once it is settled."""
        async with asyncio.timeout(30):
            while True:
                found = await self.look(hold)
                if found.state != token_pb2.HOLD_STATE_OPEN:
                    return found

    async def balance(self) -> int:
        stub = await self.token(self.payer)
        return int((await stub.GetBalance(token_pb2.GetBalanceRequest())).balance)

    def _person(self, identity: Identity) -> Later:
        return Later.by(self.clock, identity)


async def refusal_of(call: Coroutine[Any, Any, object]) -> aio.AioRpcError:
    """How a request is refused for its hold."""
    with pytest.raises(aio.AioRpcError) as refusal:
        await call
    assert error_of(refusal.value).reason == "HOLD_REFUSED"
    assert field_of(refusal.value) == "hold"
    return refusal.value

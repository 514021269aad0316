"""The token service, as the router uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from evalpool.errors import CallError
from evalpool.token.v1 import token_pb2
from evalpool_router.hold import Charge, HeldUnits
from evalpool_runtime.protobuf import from_timestamp

if TYPE_CHECKING:
    from evalpool.token.v1.token_pb2_grpc import TokenServiceAsyncStub


class LedgerUnavailable(Exception):
    """The token service could not be asked, or whether it did what it was asked is not known."""


class Ledger:
    """Looks holds up and settles them.

    Args:
        stub: Calls to the token service, signed by the router.
        timeout: Seconds that a call may take.
    """

    def __init__(self, stub: TokenServiceAsyncStub, timeout: float) -> None:
        self._stub = stub
        self._timeout = timeout

    async def hold(self, hold: str) -> HeldUnits | None:
        """The hold with an id; None where there is none that this router is a party to.

        Raises:
            LedgerUnavailable: It could not be asked.
        """
        try:
            response = await self._stub.GetHold(
                token_pb2.GetHoldRequest(id=hold), timeout=self._timeout
            )
        except grpc.aio.AioRpcError as error:
            if CallError.of(error).reason == "HOLD_NOT_FOUND":
                return None
            raise LedgerUnavailable(str(CallError.of(error))) from error
        found = response.hold
        return HeldUnits(
            id=found.id,
            holder=found.holder,
            recipient=found.recipient,
            quantity=int(found.quantity),
            is_open=found.state == token_pb2.HOLD_STATE_OPEN,
            expire_time=from_timestamp(found.expire_time),
        )

    async def settle(self, charge: Charge) -> bool:
        """Capture what is charged, or release the hold where that is nothing; harmless again.

        Returns:
            False where what is charged is lost: the hold has expired, or is gone.

        Raises:
            LedgerUnavailable: It is not known whether it was done; repeat it.
        """
        try:
            if charge.quantity:
                await self._stub.CaptureHold(
                    token_pb2.CaptureHoldRequest(id=charge.hold, quantity=str(charge.quantity)),
                    timeout=self._timeout,
                )
            else:
                await self._stub.ReleaseHold(
                    token_pb2.ReleaseHoldRequest(id=charge.hold), timeout=self._timeout
                )
        except grpc.aio.AioRpcError as error:
            told = CallError.of(error)
            if told.reason not in ("HOLD_SETTLED", "HOLD_NOT_FOUND"):
                raise LedgerUnavailable(str(told)) from error
            # Captured already: by a call of ours whose answer was lost.
            return not charge.quantity or told.metadata.get("state") == "CAPTURED"
        return True

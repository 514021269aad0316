"""Paying the herd for evaluations, where its router asks for it: from the service's own account.

A request is made without a hold first. Where inference is paid the router refuses it, and tells
what it may cost and how long a hold must last; then units are held, and it is made again. So where
inference is free nothing is asked twice, and the router alone knows what things cost.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar
from uuid import uuid4

import grpc
from google.protobuf.duration_pb2 import Duration

from evalpool.errors import CallError
from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool_dataset.problem import HOLD_REFUSED, UNAVAILABLE, CallEnded, Problem

LEDGER_SECONDS = 30.0

MOST_HOLDS = 3
"""Holds that one request is made with. One is refused that had been taken up before the call broke
off and was made again: by a router that was killed, which has given it back by then."""

_TERMS = {"price", "hold_seconds"}
"""What a router tells that wants to be paid."""

M = TypeVar(
    "M",
    inference_pb2.InferResponse,
    inference_pb2.ScoreChoicesResponse,
    router_pb2.EvaluateResponse,
)
R = TypeVar(
    "R", inference_pb2.InferRequest, inference_pb2.ScoreChoicesRequest, router_pb2.EvaluateRequest
)
Call = grpc.aio.UnaryStreamCall[R, M] | grpc.aio.UnaryUnaryCall[R, M]


class Purse:
    """Asks the herd, and pays.

    Args:
        ledger: The token service, signed by the dataset service; None where it knows of none.
        payer: The dataset service's address.
        router: The router's address.
    """

    def __init__(
        self, ledger: token_pb2_grpc.TokenServiceAsyncStub | None, payer: str, router: str
    ) -> None:
        self._ledger = ledger
        self._payer = payer
        self._router = router
        # Holds of requests that the router could not judge: they would be out for a day.
        self._spares: list[str] = []

    async def ask(self, request: R, call: Callable[[R], Call[R, M]]) -> AsyncGenerator[M, None]:
        """What comes of a request; leaving the iteration cancels it.

        Raises:
            CallEnded: Units cannot be held for it.
            grpc.aio.AioRpcError: The router refused it, or it failed.
        """
        begun = False
        for left in reversed(range(1 + MOST_HOLDS)):
            try:
                async with aclosing(_messages(call(request))) as messages:
                    async for message in messages:
                        begun = True
                        yield message
                return
            except grpc.aio.AioRpcError as error:
                refused = CallError.of(error)
                if request.hold and refused.reason == UNAVAILABLE and not begun:
                    # Where it has been taken up all the same, the router will not have it again.
                    self._spares.append(request.hold)
                wanted = refused.reason == HOLD_REFUSED and refused.metadata.keys() >= _TERMS
                if not wanted or not left:
                    raise
            request.hold = self._spares.pop() if self._spares else await self._hold(refused)

    async def ask_once(self, request: R, call: Callable[[R], Call[R, M]]) -> M:
        """The one message that comes of a request.

        Raises:
            CallEnded: Units cannot be held for it.
            grpc.aio.AioRpcError: The router refused it, or it failed.
        """
        async with aclosing(self.ask(request, call)) as messages:
            return await anext(messages)

    async def _hold(self, refused: CallError) -> str:
        """Hold what the router says that a request may cost.

        Raises:
            CallEnded: They cannot be held, now or at all.
        """
        if self._ledger is None:
            raise CallEnded(
                Problem(
                    "the router wants to be paid, and the dataset service has no account; its "
                    "operator gives it --token-endpoint and --token-address",
                    HOLD_REFUSED,
                )
            )
        price = refused.metadata["price"]
        try:
            response = await self._ledger.Hold(
                token_pb2.HoldRequest(
                    recipient=self._router,
                    quantity=price,
                    time_to_live=Duration(seconds=int(refused.metadata["hold_seconds"])),
                    request_id=f"evaluation-{uuid4()}",
                ),
                timeout=LEDGER_SECONDS,
            )
        except grpc.aio.AioRpcError as error:
            raise CallEnded(self._problem(CallError.of(error), price)) from error
        return response.hold.id

    def _problem(self, error: CallError, price: str) -> Problem:
        if error.reason == "INSUFFICIENT_BALANCE":
            return Problem(
                f"inference is paid, and the dataset service's account {self._payer} has "
                f"{error.metadata.get('balance')} units where {price} have to be held; transfer "
                "it some",
                HOLD_REFUSED,
            )
        if error.reason in ("", UNAVAILABLE):
            return Problem("the token service cannot be asked for a hold", UNAVAILABLE)
        return Problem(
            f"inference is paid, and the ledger holds nothing for it: {error.message}",
            HOLD_REFUSED,
        )


async def _messages(call: Call[R, M]) -> AsyncGenerator[M, None]:
    try:
        if isinstance(call, grpc.aio.UnaryUnaryCall):
            yield await call
            return
        async for message in call:
            yield message
    finally:
        call.cancel()

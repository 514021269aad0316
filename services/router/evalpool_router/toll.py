"""Paid inference: a hold is checked first, and charged for what was used, once.

The decision is written before the ledger is asked to capture; a loop carries out what is decided,
after a crash as before. A hold can be captured once, so a repeat does no harm. It has to outlast
its request by the time for which an outage may keep it from being captured.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar

import structlog

from evalpool.inference.v1 import inference_pb2
from evalpool_router import charges
from evalpool_router.charge_metrics import ChargeMetrics
from evalpool_router.hold import HeldUnits
from evalpool_router.ledger import Ledger, LedgerUnavailable
from evalpool_router.prices import Flaw, Objection, Prices, objection
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database
from evalpool_runtime.errors import FailedPrecondition, Unavailable, reasons

NOTHING_OFFERED = Fraction(1)

SLACK = timedelta(seconds=60)
"""What callers are told beyond the time that a hold must last: until its request comes, it ages."""

OF_NO_USE = frozenset({Flaw.SMALL, Flaw.EXPIRES})
"""What is wrong with a hold that is given back at once: its holder could not, for a day or so."""

GONE = timedelta(seconds=60)
"""How old a hold that was taken up must be to be let go: no request is on its way to it."""

KEPT = timedelta(days=1)
"""How long a charge that is done is kept: much longer than a hold that was read as open may take to
be written as taken up."""

R = TypeVar("R", inference_pb2.InferResponse, inference_pb2.ScoreChoicesResponse)

_log = structlog.get_logger("evalpool.router.toll")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a caller pays a request with.

    Attributes:
        hold: The hold's id; empty where there is none.
        payer: The caller.
        multiplier: What is offered to go first.
        most_tokens: Tokens that the request may take.
        seconds: How long it may take.
    """

    hold: str
    payer: str
    multiplier: Fraction
    most_tokens: int
    seconds: float


@dataclass(slots=True)
class Meter:
    """What a request has used so far.

    Attributes:
        tokens: Tokens of prompts and answers that the caller got the result of.
        served: Whether the caller got anything.
    """

    tokens: int = 0
    served: bool = False

    def count(self, tokens: int) -> None:
        """Count what the caller is about to get."""
        self.tokens += tokens
        self.served = True


def paid_tokens(usage: inference_pb2.Usage) -> int:
    """Tokens that are paid for; what workers share among requests is no discount."""
    return usage.prompt_tokens + usage.completion_tokens


class Toll:
    """Checks holds and charges them.

    Args:
        prices: What inference costs.
        database: Where decisions are written.
        ledger: Where holds are.
        router: The router's address.
        clock: What time it is.
        metrics: What is counted.
        settle_time: How long a hold must last after the request's deadline.
        retry_seconds: After how long what the ledger could not do is tried again.
    """

    def __init__(
        self,
        prices: Prices,
        database: Database,
        ledger: Ledger,
        router: str,
        clock: Clock,
        metrics: ChargeMetrics,
        *,
        settle_time: timedelta,
        retry_seconds: float,
    ) -> None:
        self.prices = prices
        self._database = database
        self._ledger = ledger
        self._router = router
        self._clock = clock
        self._metrics = metrics
        self._settle_time = settle_time
        self._retry_seconds = retry_seconds
        self._under_way: set[str] = set()
        self._wake = asyncio.Event()
        self._deciding: set[asyncio.Task[None]] = set()

    def weight(self, multiplier: Fraction) -> Fraction:
        """What an offer counts for: nothing where it costs nothing."""
        return multiplier if self.prices.paid else NOTHING_OFFERED

    def hold_time(self, seconds: float) -> timedelta:
        """How long a hold should last that is made for a request of so many seconds."""
        return timedelta(seconds=math.ceil(seconds)) + self._settle_time + SLACK

    @asynccontextmanager
    async def paying(self, offer: Offer) -> AsyncIterator[Meter]:
        """Do a request that a hold pays for; at its end, however it comes, the hold is charged.

        Raises:
            FailedPrecondition: The hold is refused.
            Unavailable: The token service cannot be asked.
        """
        meter = Meter()
        if not self.prices.paid:
            yield meter
            return
        held = await self._take_up(offer)
        try:
            yield meter
        finally:
            # It stays under way until that is written.
            used = self.prices.charge(meter.tokens, offer.multiplier, held) if meter.served else 0
            await self._to_the_end(self._decide(offer.hold, used))

    def answers(
        self, offer: Offer, work: Callable[[Meter], AsyncGenerator[R, None]]
    ) -> AsyncGenerator[R, None]:
        """What work gives, paid by a hold where inference is paid.

        Raises:
            DomainError: As `paying`, and as the work.
        """
        return self._charged(offer, work) if self.prices.paid else work(Meter())

    async def run(self) -> None:
        """Carry out what is decided, for ever."""
        while True:
            self._wake.clear()
            await self.settle_due()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._retry_seconds):
                    await self._wake.wait()

    async def settle_due(self) -> None:
        """Try each decision that is due once; one that fails does not hold up the others."""
        due = await self._database.read(charges.due)
        self._metrics.pending(len(due))
        for charge in due:
            try:
                done = await self._ledger.settle(charge)
            except LedgerUnavailable as error:
                _log.warning("a hold waits to be settled", hold=charge.hold, error=str(error))
                continue
            if not done:
                # No retry undoes that.
                _log.error("a charge is lost", hold=charge.hold, units=charge.quantity)
            await self._database.write(
                partial(charges.settled, hold=charge.hold, now=self._clock.now())
            )
            self._metrics.settled(charge, lost=not done)

    async def let_go(self, age: timedelta = GONE) -> None:
        """Charge nothing for holds that were taken up, and whose requests are gone.

        They went with the router's last process, or before it was known that their hold was
        written, or what was decided could not be written.

        Args:
            age: How long ago they must have been taken up.
        """
        before = self._clock.now() - age
        if await self._database.write(
            partial(charges.let_go, before=before, under_way=frozenset(self._under_way))
        ):
            self._wake.set()

    async def forget(self) -> None:
        """Forget charges that have long been done."""
        await self._database.write(partial(charges.forget, before=self._clock.now() - KEPT))

    async def close(self) -> None:
        """Wait until every decision under way is written."""
        await asyncio.gather(*self._deciding)

    async def _charged(
        self, offer: Offer, work: Callable[[Meter], AsyncGenerator[R, None]]
    ) -> AsyncGenerator[R, None]:
        """What the hold is charged is written before the last message."""
        last: R | None = None
        async with self.paying(offer) as meter, aclosing(work(meter)) as responses:
            async for response in responses:
                if response.HasField("complete"):
                    last = response
                else:
                    yield response
        if last is not None:
            yield last

    async def _take_up(self, offer: Offer) -> int:
        """Let a hold pay for a request; gives what is held.

        Raises:
            FailedPrecondition: The hold is refused.
            Unavailable: The token service cannot be asked.
        """
        price = self.prices.price(offer.most_tokens, offer.multiplier)
        until = self._clock.now() + timedelta(seconds=offer.seconds) + self._settle_time
        if not offer.hold:
            sentence = (
                f"inference is paid here; hold {price} units for {self._router} until "
                f"{until.isoformat(timespec='seconds')}, and give the hold's id"
            )
            raise self._refusal(Objection(Flaw.MISSING, sentence), offer, price)
        try:
            hold = await self._ledger.hold(offer.hold)
        except LedgerUnavailable as error:
            raise Unavailable(
                reasons.ERROR_REASON_UNAVAILABLE,
                "hold: the token service cannot be asked; try again",
                retry_after=self._retry_seconds,
            ) from error
        if hold is None:
            sentence = f"there is none with this id for {self._router}; make one"
            raise self._refusal(Objection(Flaw.UNKNOWN, sentence), offer, price)
        refusal = objection(hold, payer=offer.payer, router=self._router, price=price, until=until)
        if refusal is not None and refusal.flaw not in OF_NO_USE:
            raise self._refusal(refusal, offer, price)
        if not await self._write_up(hold):
            sentence = "it pays for another request; make a new one"
            raise self._refusal(Objection(Flaw.TAKEN, sentence), offer, price)
        if refusal is not None:
            await self._to_the_end(self._decide(hold.id, 0))
            raise self._refusal(refusal, offer, price)
        return hold.quantity

    async def _write_up(self, hold: HeldUnits) -> bool:
        """Write that a hold is taken up; False where it is or was by another request."""
        if hold.id in self._under_way:
            return False
        self._under_way.add(hold.id)
        taken = False
        try:
            now = self._clock.now()
            taken = await self._database.write(partial(charges.take_up, hold=hold, now=now))
        finally:
            if not taken:
                self._under_way.discard(hold.id)
        return taken

    def _refusal(self, refusal: Objection, offer: Offer, price: int) -> FailedPrecondition:
        self._metrics.refused(refusal.flaw)
        seconds = self.hold_time(offer.seconds).total_seconds()
        return FailedPrecondition(
            reasons.ERROR_REASON_HOLD_REFUSED,
            f"hold: {refusal.sentence}",
            price=str(price),
            hold_seconds=f"{seconds:.0f}",
        )

    async def _decide(self, hold: str, quantity: int) -> None:
        try:
            await self._database.write(partial(charges.decide, hold=hold, quantity=quantity))
        finally:
            self._under_way.discard(hold)
        self._wake.set()

    async def _to_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        # A caller who goes meanwhile does not keep it from being written.
        task = asyncio.create_task(work)
        self._deciding.add(task)
        task.add_done_callback(self._deciding.discard)
        await asyncio.shield(task)

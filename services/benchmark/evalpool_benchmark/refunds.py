"""Sends back what cannot be used, as it was decided.

A refund follows from what is written, under a request id that makes repeats harmless.
"""

from __future__ import annotations

from functools import partial

import structlog

from evalpool_benchmark.ledger import Ledger, Payment
from evalpool_benchmark.metrics import BenchmarkMetrics
from evalpool_benchmark.payout import refund_request, refund_tags
from evalpool_benchmark.peers import PeerRefused, PeerUnavailable
from evalpool_benchmark.store import fundings
from evalpool_benchmark.wakes import Wakes
from evalpool_runtime.database import Database

_log = structlog.get_logger("evalpool.benchmark.funding")


class Refunds:
    """Sends the refunds that are decided, until each is known to be sent."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        wakes: Wakes,
        metrics: BenchmarkMetrics,
        retry_seconds: float,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._ledger = ledger
        self._wakes = wakes
        self._retry_seconds = retry_seconds

    async def run(self) -> None:
        """Send refunds for ever."""
        while True:
            seen = self._wakes.refunds.version
            await self.send_due()
            await self._wakes.refunds.wait(seen, self._retry_seconds)

    async def send_due(self) -> None:
        """Try each refund due once; one that fails does not hold up the others."""
        for funding in await self._database.read(fundings.refunds_due):
            payment = Payment(
                recipient=funding.payer,
                quantity=funding.quantity,
                tags=refund_tags(funding.transfer, funding.reason),
            )
            try:
                sent = await self._ledger.pay(payment, refund_request(funding.transfer))
            except (PeerUnavailable, PeerRefused) as error:
                self._metrics.waiting.labels("refund").inc()
                _log.warning("a refund waits", transfer=funding.transfer, error=str(error))
                continue
            await self._database.write(
                partial(fundings.refunded, transfer=funding.transfer, refund_transfer=sent)
            )
            self._metrics.refunds.inc()

"""Reads the ledger's notices and has each credit decided exactly once.

One commit writes the decision, what it makes (a pool, a contribution, or a refund to make) and the
cursor.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial

import structlog
from sqlalchemy import Connection

from evalpool_benchmark.decisions import Decision, decide, new_pool
from evalpool_benchmark.funding import CreatePool, Credit, FundingState, Refusal, read_request
from evalpool_benchmark.metrics import BenchmarkMetrics
from evalpool_benchmark.peers import Datasets, Ledger, PeerRefused, PeerUnavailable
from evalpool_benchmark.pool import Pool
from evalpool_benchmark.store import fundings
from evalpool_benchmark.wakes import Wakes
from evalpool_runtime.database import Database
from evalpool_runtime.errors import reasons

_CURSOR_EVERY = 100
"""Notices of no interest after which the cursor is kept anyway."""

_log = structlog.get_logger("evalpool.benchmark.funding")


class NoticeConsumer:
    """Decides credits.

    Args:
        database: Where decisions are kept.
        ledger: The token service.
        datasets: The dataset service.
        wakes: Who is told of decisions.
        metrics: Counts decisions.
        retry_seconds: After how long a peer that cannot be reached is tried again.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        datasets: Datasets,
        wakes: Wakes,
        metrics: BenchmarkMetrics,
        retry_seconds: float,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._metrics = metrics
        self._datasets = datasets
        self._wakes = wakes
        self._retry_seconds = retry_seconds

    async def run(self) -> None:
        """Read notices for ever."""
        while True:
            try:
                await self._consume()
            except (PeerUnavailable, PeerRefused) as error:
                _log.warning("the ledger's notices cannot be read now", error=str(error))
            await asyncio.sleep(self._retry_seconds)

    async def _consume(self) -> None:
        after = await self._database.read(partial(fundings.cursor, name=fundings.NOTICES))
        skipped = 0
        async with aclosing(self._ledger.notices(after)) as notices:
            async for read in notices:
                if read.credit is not None:
                    await self._decide(read.credit, read.cursor)
                    skipped = 0
                    continue
                skipped += 1
                if skipped >= _CURSOR_EVERY:
                    await self._database.write(partial(_move_notices, cursor=read.cursor))
                    skipped = 0

    async def _decide(self, credit: Credit, cursor: int) -> None:
        request = read_request(credit)
        decision: Decision = (
            request
            if not isinstance(request, CreatePool)
            else (await self._with_dataset(credit, request))
        )
        state = await self._database.write(
            partial(decide, credit=credit, decision=decision, cursor=cursor)
        )
        if state is None:
            return  # it had been decided before
        self._metrics.fundings.labels(state.value).inc()
        _log.info("a credit is decided", transfer=credit.transfer, state=state.value)
        if state in (FundingState.CREATED, FundingState.ADDED):
            self._wakes.pools.notify()
            self._wakes.ends.notify()
        elif state is FundingState.REFUNDED:
            self._wakes.refunds.notify()

    async def _with_dataset(self, credit: Credit, request: CreatePool) -> Pool | Refusal:
        """Pin the dataset's version; waits as long as the dataset service cannot say."""
        while True:
            try:
                dataset = await self._datasets.dataset(request.dataset)
                break
            except PeerRefused as refusal:
                if refusal.not_found:
                    return Refusal.because(
                        reasons.ERROR_REASON_DATASET_NOT_FOUND,
                        f'X-Dataset: there is none with the id "{request.dataset}"; '
                        "ListDatasets lists them.",
                    )
                cause: Exception = refusal
            except PeerUnavailable as error:
                cause = error
            self._metrics.waiting.labels("credit").inc()
            _log.warning(
                "a credit waits for the dataset service",
                transfer=credit.transfer,
                error=str(cause),
            )
            await asyncio.sleep(self._retry_seconds)
        return new_pool(credit, request, dataset)


def _move_notices(connection: Connection, cursor: int) -> None:
    fundings.lock_cursor(connection, fundings.NOTICES)
    fundings.move_cursor(connection, fundings.NOTICES, cursor)

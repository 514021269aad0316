"""Reads the ledger's notices and has each credit decided exactly once.

One commit writes the decision, what it makes (a pool, a contribution, or a refund to make) and the
cursor. A credit that cannot be decided now, since its dataset cannot be asked for, holds up the
cursor, and no other credit but the top-ups of its own pool.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

import structlog
from sqlalchemy import Connection

from evalpool_benchmark.datasets import DatasetInfo, Datasets
from evalpool_benchmark.decisions import Decision, decide, new_pool
from evalpool_benchmark.funding import (
    CreatePool,
    Credit,
    FundingState,
    Refusal,
    TopUp,
    read_request,
)
from evalpool_benchmark.ledger import Ledger, NoticeRead
from evalpool_benchmark.metrics import BenchmarkMetrics
from evalpool_benchmark.peers import PeerRefused, PeerUnavailable
from evalpool_benchmark.read_ahead import ReadAhead
from evalpool_benchmark.store import fundings
from evalpool_benchmark.wakes import Wakes
from evalpool_runtime.database import Database
from evalpool_runtime.errors import reasons

_CURSOR_EVERY = 100
"""Notices of no interest after which the cursor is kept anyway."""

_READ_AHEAD = 100
"""Notices read ahead of their decisions at most."""

_MOST_WAITING = 1_000
"""Credits that wait at most; until one is decided no further notices are read."""

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
        reading = _Reading(after)
        now = asyncio.get_running_loop().time
        next_try = now() + self._retry_seconds
        async with ReadAhead(self._ledger.notices(after), _READ_AHEAD) as notices:
            while True:
                if not reading.waiting:
                    next_try = now() + self._retry_seconds
                pause = max(next_try - now(), 0.0)
                if len(reading.waiting) >= _MOST_WAITING:
                    await asyncio.sleep(pause)
                else:
                    batch = await notices.batch(pause if reading.waiting else None)
                    if batch is None:
                        return
                    for read in batch:
                        await self._take(reading, read)
                if reading.waiting and now() >= next_try:
                    await self._try_waiting(reading)
                    next_try = now() + self._retry_seconds

    async def _take(self, reading: _Reading, read: NoticeRead) -> None:
        reading.cursor = read.cursor
        if read.credit is None:
            reading.skipped += 1
            if reading.skipped >= _CURSOR_EVERY and not reading.waiting:
                await self._database.write(partial(_move_notices, cursor=read.cursor))
                reading.skipped = 0
            return
        reading.skipped = 0
        known = partial(fundings.get, transfer=read.credit.transfer)
        if await self._database.read(known) is not None:
            return  # read again, since something before it had waited
        request = read_request(read.credit)
        dataset = None
        if isinstance(request, CreatePool):
            dataset = await self._look_up(request.dataset)
        await self._decide_or_wait(reading, read.credit, request, dataset)

    async def _try_waiting(self, reading: _Reading) -> None:
        """Try once more what waits, in the ledger's order, asking for each dataset once."""
        credits = list(reading.waiting.values())
        requests = [read_request(credit) for credit in credits]
        names = list({each.dataset: None for each in requests if isinstance(each, CreatePool)})
        found = await asyncio.gather(*(self._look_up(name) for name in names))
        datasets = dict(zip(names, found, strict=True))
        for credit, request in zip(credits, requests, strict=True):
            dataset = datasets[request.dataset] if isinstance(request, CreatePool) else None
            await self._decide_or_wait(reading, credit, request, dataset)

    async def _decide_or_wait(
        self,
        reading: _Reading,
        credit: Credit,
        request: CreatePool | TopUp | Refusal,
        dataset: DatasetInfo | Refusal | None,
    ) -> None:
        """Decide a credit, unless what it needs to know cannot be had now."""
        decision: Decision
        if isinstance(request, CreatePool):
            if dataset is None:
                reading.waiting[credit.transfer] = credit
                self._metrics.waiting.labels("credit").inc()
                return
            decision = (
                dataset if isinstance(dataset, Refusal) else new_pool(credit, request, dataset)
            )
        elif isinstance(request, TopUp) and request.pool in reading.waiting:
            # Its pool is on its way: the payer knew the id from the transfer that makes it.
            reading.waiting[credit.transfer] = credit
            return
        else:
            decision = request
        reading.waiting.pop(credit.transfer, None)
        await self._decide(credit, decision, reading.decided_up_to)

    async def _decide(self, credit: Credit, decision: Decision, cursor: int) -> None:
        state = await self._database.write(
            partial(decide, credit=credit, decision=decision, cursor=cursor)
        )
        if state is None:
            return  # another replica has decided it
        self._metrics.fundings.labels(state.value).inc()
        _log.info("a credit is decided", transfer=credit.transfer, state=state.value)
        if state in (FundingState.CREATED, FundingState.ADDED):
            self._wakes.pools.notify()
            self._wakes.ends.notify()
        elif state is FundingState.REFUNDED:
            self._wakes.refunds.notify()

    async def _look_up(self, dataset: str) -> DatasetInfo | Refusal | None:
        """A dataset, a refusal where there is none, or None where it cannot be said now."""
        try:
            return await self._datasets.dataset(dataset)
        except (PeerUnavailable, PeerRefused) as error:
            if isinstance(error, PeerRefused) and error.not_found:
                return Refusal.because(
                    reasons.ERROR_REASON_DATASET_NOT_FOUND,
                    f'X-Dataset: there is none with the id "{dataset}"; ListDatasets lists them.',
                )
            _log.warning("credits wait for a dataset", dataset=dataset, error=str(error))
            return None


@dataclass(slots=True)
class _Reading:
    """How far the notices have been read, and what of them is not decided yet.

    Attributes:
        cursor: The cursor of the last notice read.
        waiting: Credits that cannot be decided now, by transfer, in the ledger's order.
        skipped: Notices of no interest since the cursor was kept.
    """

    cursor: int
    waiting: dict[str, Credit] = field(default_factory=dict)
    skipped: int = 0

    @property
    def decided_up_to(self) -> int:
        """The cursor to go on from after a restart: everything up to it is decided."""
        first = next(iter(self.waiting.values()), None)
        return self.cursor if first is None else first.sequence - 1


def _move_notices(connection: Connection, cursor: int) -> None:
    fundings.lock_cursor(connection, fundings.NOTICES)
    fundings.move_cursor(connection, fundings.NOTICES, cursor)

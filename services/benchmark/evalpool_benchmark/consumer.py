"""Reads the ledger's notices and decides each credit exactly once; then sends the refunds due.

One commit writes the decision, what it makes (a pool, a contribution, or a refund to make) and the
cursor. Refunds follow from what is written, under request ids that make repeats harmless.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial

import structlog
from sqlalchemy import Connection

from evalpool_benchmark.funding import (
    CreatePool,
    Credit,
    FundingState,
    Refusal,
    TopUp,
    read_request,
)
from evalpool_benchmark.metrics import BenchmarkMetrics
from evalpool_benchmark.payout import Contribution, refund_request, refund_tags
from evalpool_benchmark.peers import (
    DatasetInfo,
    Datasets,
    Ledger,
    Payment,
    PeerRefused,
    PeerUnavailable,
)
from evalpool_benchmark.pool import Pool
from evalpool_benchmark.store import fundings, pools
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
        decision: _Decision = (
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
                        f'X-Dataset: there is no dataset "{request.dataset}"; name another.',
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
        if dataset.question_count == 0 or not dataset.version:
            return Refusal.because(
                reasons.ERROR_REASON_DATASET_EMPTY,
                f'X-Dataset: the dataset "{request.dataset}" has no questions; load some first.',
            )
        return new_pool(credit, request, dataset)


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


_Decision = Pool | TopUp | Refusal


def new_pool(credit: Credit, request: CreatePool, dataset: DatasetInfo) -> Pool:
    """The pool that a credit asks for, on the dataset's version as it is now; without funds yet."""
    return Pool(
        id=credit.transfer,
        sequence=credit.sequence,
        title=request.title or dataset.title,
        funder=credit.payer,
        dataset=dataset.id,
        dataset_version=dataset.version,
        dataset_owner=dataset.owner,
        question_count=dataset.question_count,
        evaluator=request.evaluator or dataset.evaluator,
        allocation=request.allocation,
        tie_rule=request.tie_rule,
        start_time=request.start_time,
        end_time=request.end_time,
        grace=request.grace,
        minimum_score=request.minimum_score,
        max_entries_per_day=request.max_entries_per_day,
    )


def decide(
    connection: Connection, credit: Credit, decision: _Decision, cursor: int
) -> FundingState | None:
    """Write the decision on a credit, what follows from it, and the cursor, in one transaction.

    Returns:
        What became of the credit; None where it had been decided before.
    """
    fundings.lock_cursor(connection, fundings.NOTICES)
    fundings.move_cursor(connection, fundings.NOTICES, cursor)
    if fundings.get(connection, credit.transfer) is not None:
        return None
    if isinstance(decision, TopUp):
        return _top_up(connection, credit, decision)
    if isinstance(decision, Refusal):
        return _refuse(connection, credit, decision)
    pools.create(connection, decision)
    pools.add_contribution(connection, decision, _contribution(credit))
    fundings.accept(connection, credit, FundingState.CREATED, decision.id)
    return FundingState.CREATED


def _top_up(connection: Connection, credit: Credit, request: TopUp) -> FundingState:
    pool = pools.lock(connection, request.pool)
    if pool is None:
        return _refuse(
            connection,
            credit,
            Refusal.because(
                reasons.ERROR_REASON_POOL_NOT_FOUND,
                f'X-Pool: there is no pool "{request.pool}"; name one that exists.',
            ),
        )
    if not pool.takes_contribution(credit.time):
        return _refuse(
            connection,
            credit,
            Refusal.because(
                reasons.ERROR_REASON_POOL_CLOSED,
                f'X-Pool: the pool "{request.pool}" has ended; name one that is open.',
            ),
        )
    pools.add_contribution(connection, pool, _contribution(credit))
    fundings.accept(connection, credit, FundingState.ADDED, pool.id)
    return FundingState.ADDED


def _refuse(connection: Connection, credit: Credit, refusal: Refusal) -> FundingState:
    fundings.refuse(connection, credit, refusal)
    return FundingState.REFUNDED if credit.payer else FundingState.KEPT


def _contribution(credit: Credit) -> Contribution:
    return Contribution(
        transfer=credit.transfer,
        payer=credit.payer,
        quantity=credit.quantity,
        time=credit.time,
        sequence=credit.sequence,
    )


def _move_notices(connection: Connection, cursor: int) -> None:
    fundings.lock_cursor(connection, fundings.NOTICES)
    fundings.move_cursor(connection, fundings.NOTICES, cursor)

"""Decides what becomes of a credit, and writes it with all that follows from it in one commit."""

from __future__ import annotations

from sqlalchemy import Connection

from evalpool_benchmark.datasets import DatasetInfo
from evalpool_benchmark.funding import CreatePool, Credit, FundingState, Refusal, TopUp
from evalpool_benchmark.payout import Contribution
from evalpool_benchmark.pool import Pool
from evalpool_benchmark.store import fundings, pools
from evalpool_runtime.errors import reasons

Decision = Pool | TopUp | Refusal
"""A pool to make, a pool to add to, or why a credit goes back."""


def new_pool(credit: Credit, request: CreatePool, dataset: DatasetInfo) -> Pool | Refusal:
    """The pool that a credit asks for, on the dataset's version as it is now; without funds yet.

    Returns:
        The pool, or a refusal where no entry could ever be evaluated in it.
    """
    if dataset.question_count == 0 or not dataset.version:
        return Refusal.because(
            reasons.ERROR_REASON_DATASET_EMPTY,
            f'X-Dataset: "{dataset.id}" has no questions; load some first.',
        )
    evaluator = request.evaluator or dataset.evaluator
    if evaluator not in dataset.evaluators:
        return _mismatch(evaluator, dataset)
    return Pool(
        id=credit.transfer,
        sequence=credit.sequence,
        title=request.title or dataset.title,
        funder=credit.payer,
        dataset=dataset.id,
        dataset_version=dataset.version,
        dataset_owner=dataset.owner,
        question_count=dataset.question_count,
        evaluator=evaluator,
        allocation=request.allocation,
        tie_rule=request.tie_rule,
        start_time=request.start_time,
        end_time=request.end_time,
        grace=request.grace,
        minimum_score=request.minimum_score,
        max_entries_per_day=request.max_entries_per_day,
        subject_kind=dataset.subject_kind,
    )


def _mismatch(evaluator: str, dataset: DatasetInfo) -> Refusal:
    if not dataset.evaluators:
        reason = (
            f'X-Dataset: "{dataset.id}" cannot be evaluated by anything at present; '
            "name another, or ask the dataset service's operator."
        )
    else:
        reason = (
            f'X-Evaluator: "{dataset.id}" cannot be evaluated by '
            f"{evaluator or 'its default'}; give {' or '.join(dataset.evaluators)}."
        )
    return Refusal.because(reasons.ERROR_REASON_EVALUATOR_MISMATCH, reason)


def decide(
    connection: Connection, credit: Credit, decision: Decision, cursor: int
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
                f'X-Pool: there is none with the id "{request.pool}"; ListPools lists them.',
            ),
        )
    if not pool.takes_contribution(credit.time):
        return _refuse(
            connection,
            credit,
            Refusal.because(
                reasons.ERROR_REASON_POOL_CLOSED,
                f'X-Pool: "{request.pool}" has ended; name one that is open.',
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

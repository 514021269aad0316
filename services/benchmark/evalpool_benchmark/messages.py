"""The domain's values as the contract's messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from evalpool.common.v1 import subject_kind_pb2
from evalpool_benchmark.entry import Entry, EntryState
from evalpool_benchmark.funding import FundingState
from evalpool_benchmark.leaderboard import Leaderboard, Row
from evalpool_benchmark.payout import Contribution, PayoutLine
from evalpool_benchmark.pool import Pool, PoolState, SubjectKind
from evalpool_benchmark.store.fundings import Funding
from evalpool_runtime.protobuf import duration, timestamp

ENTRY_STATES = {
    EntryState.SUBMITTED: pb.ENTRY_STATE_SUBMITTED,
    EntryState.QUEUED: pb.ENTRY_STATE_QUEUED,
    EntryState.RUNNING: pb.ENTRY_STATE_RUNNING,
    EntryState.SCORED: pb.ENTRY_STATE_SCORED,
    EntryState.FAILED: pb.ENTRY_STATE_FAILED,
    EntryState.WITHDRAWN: pb.ENTRY_STATE_WITHDRAWN,
    EntryState.DISQUALIFIED: pb.ENTRY_STATE_DISQUALIFIED,
}
POOL_STATES = {
    PoolState.SCHEDULED: pb.POOL_STATE_SCHEDULED,
    PoolState.OPEN: pb.POOL_STATE_OPEN,
    PoolState.CLOSING: pb.POOL_STATE_CLOSING,
    PoolState.PAYING: pb.POOL_STATE_PAYING,
    PoolState.PAID: pb.POOL_STATE_PAID,
    PoolState.RETURNED: pb.POOL_STATE_RETURNED,
}
FUNDING_STATES = {
    FundingState.CREATED: pb.FUNDING_STATE_CREATED,
    FundingState.ADDED: pb.FUNDING_STATE_ADDED,
    FundingState.REFUNDED: pb.FUNDING_STATE_REFUNDED,
    FundingState.KEPT: pb.FUNDING_STATE_KEPT,
}
SUBJECT_KINDS = {
    SubjectKind.MODEL: subject_kind_pb2.SUBJECT_KIND_MODEL,
    SubjectKind.DOCUMENT_SET: subject_kind_pb2.SUBJECT_KIND_DOCUMENT_SET,
}
_POOL_STATES_BY_NUMBER = {number: state for state, number in POOL_STATES.items()}


def pool_state(number: pb.PoolState.ValueType) -> PoolState | None:
    """The state of a filter; None for "all".

    Raises:
        KeyError: There is no such state.
    """
    return None if number == pb.POOL_STATE_UNSPECIFIED else _POOL_STATES_BY_NUMBER[number]


def pool_message(pool: Pool, entry_count: int, now: datetime) -> pb.Pool:
    """A pool as it is at a moment."""
    message = pb.Pool(
        id=pool.id,
        title=pool.title,
        funder=pool.funder,
        funds=str(pool.funds),
        allocation=pool.allocation,
        tie_rule=pool.tie_rule,
        dataset=pool.dataset,
        dataset_version=pool.dataset_version,
        evaluator=pool.evaluator,
        start_time=timestamp(pool.start_time),
        end_time=timestamp(pool.end_time),
        grace=duration(pool.grace),
        minimum_score=pool.minimum_score,
        max_entries_per_day=pool.max_entries_per_day,
        state=POOL_STATES[pool.state(now)],
        entry_count=entry_count,
        question_count=pool.question_count,
        subject_kind=SUBJECT_KINDS[pool.subject_kind],
    )
    if pool.settle_time is not None:
        message.settle_time.CopyFrom(timestamp(pool.settle_time))
    return message


def contribution_message(contribution: Contribution) -> pb.Contribution:
    """A contribution."""
    return pb.Contribution(
        transfer=contribution.transfer,
        payer=contribution.payer,
        quantity=str(contribution.quantity),
        create_time=timestamp(contribution.time),
    )


def payout_messages(lines: Sequence[PayoutLine]) -> list[pb.Payout]:
    """A payout plan, with its receipts."""
    return [
        pb.Payout(
            entry=line.entry,
            rank=line.rank,
            recipient=line.recipient,
            quantity=str(line.quantity),
            transfer=line.transfer,
            contribution=line.contribution,
        )
        for line in lines
    ]


def entry_message(entry: Entry, *, with_detail: bool) -> pb.Entry:
    """An entry.

    Args:
        entry: The entry.
        with_detail: Whether its failure's sentence is shown: to its participant and the operator.
            That it failed, and the kind of failure, everybody may know; so too why it was
            disqualified, or was not complete when the pool ended.
    """
    private = entry.state is not EntryState.DISQUALIFIED and not entry.is_cut_off
    message = pb.Entry(
        id=entry.id,
        pool=entry.pool,
        subject=entry.subject,
        subject_name=entry.subject_name,
        participant=entry.participant,
        state=ENTRY_STATES[entry.state],
        reason="" if private and not with_detail else entry.reason,
        queue_position=entry.queue_position,
        done=entry.done,
        correct=entry.correct,
        total=entry.total,
        run=entry.run,
        join_time=timestamp(entry.join_time),
        prize_free=entry.prize_free,
        revision=entry.revision,
        reason_code=entry.reason_code,
        points=entry.points,
        full_marks=entry.full_marks,
    )
    if entry.end_time is not None:
        message.end_time.CopyFrom(timestamp(entry.end_time))
    if entry.retry_time is not None:
        message.retry_time.CopyFrom(timestamp(entry.retry_time))
    return message


def leaderboard_message(board: Leaderboard) -> pb.Leaderboard:
    """A leaderboard."""
    return pb.Leaderboard(
        pool=board.pool,
        rows=[_row_message(row) for row in board.rows],
        snapshot_time=timestamp(board.time),
        revision=board.revision,
        final=board.final,
        funds=str(board.funds),
    )


def funding_message(funding: Funding, *, with_detail: bool) -> pb.Funding:
    """A decision on a transfer; its cause and its refund only for the payer and the operator."""
    message = pb.Funding(
        transfer=funding.transfer, state=FUNDING_STATES[funding.state], pool=funding.pool
    )
    if with_detail:
        message.reason = funding.reason
        message.reason_code = funding.reason_code
        message.refund_transfer = funding.refund_transfer
    return message


def pending_message(transfer: str) -> pb.Funding:
    """A transfer that is not decided on yet."""
    return pb.Funding(transfer=transfer, state=pb.FUNDING_STATE_PENDING)


def _row_message(row: Row) -> pb.LeaderboardRow:
    low, high = row.interval
    return pb.LeaderboardRow(
        rank=row.rank,
        entry=row.entry,
        subject=row.subject,
        subject_name=row.subject_name,
        participant=row.participant,
        state=ENTRY_STATES[row.state],
        correct=row.correct,
        done=row.done,
        total=row.total,
        score=row.score,
        progress=row.progress,
        score_low=low,
        score_high=high,
        tied_with=row.tied_with,
        reward=str(row.reward),
        prize_free=row.prize_free,
        ineligible_reason=row.ineligible_reason,
        join_time=timestamp(row.join_time),
        points=row.points,
        full_marks=row.full_marks,
    )

"""Everything about money at once, for the audit."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import Connection, select

from evalpool_benchmark import schema
from evalpool_benchmark.books import Books, Decision, PoolStanding
from evalpool_benchmark.funding import FundingState
from evalpool_benchmark.payout import Contribution, PayoutLine
from evalpool_benchmark.pool import Phase
from evalpool_benchmark.store.pools import contribution_of
from evalpool_benchmark.store.results import line_of

MIGRATIONS = "evalpool_benchmark.migrations"
OWN_TABLE = "fundings"
"""A table that this service's databases have had from the first, and no other's."""


def read(connection: Connection) -> Books:
    """All decisions, pools, contributions and plans, as they are at the transaction's moment."""
    contributions: dict[str, list[Contribution]] = defaultdict(list)
    for row in connection.execute(
        select(schema.contributions).order_by(schema.contributions.c.sequence)
    ):
        contributions[row.pool].append(contribution_of(row))
    plans: dict[str, list[PayoutLine]] = defaultdict(list)
    for row in connection.execute(select(schema.payouts).order_by(schema.payouts.c.line)):
        plans[row.pool].append(line_of(row))
    pools = select(schema.pools.c.id, schema.pools.c.phase, schema.pools.c.funds)
    return Books(
        decisions=tuple(
            Decision(
                transfer=row.transfer,
                payer=row.payer,
                quantity=row.quantity,
                sequence=row.sequence,
                state=FundingState(row.state),
                pool=row.pool or "",
                refund=row.refund_transfer or "",
            )
            for row in connection.execute(
                select(schema.fundings).order_by(schema.fundings.c.sequence)
            )
        ),
        pools={
            row.id: PoolStanding(Phase(row.phase), row.funds) for row in connection.execute(pools)
        },
        contributions=dict(contributions),
        plans=dict(plans),
    )

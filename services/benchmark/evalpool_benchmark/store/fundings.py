"""Decisions on credits, and the refunds that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from evalpool_benchmark.funding import Credit, FundingState, Refusal
from evalpool_benchmark.schema import cursors, fundings

NOTICES = "notices"
"""The cursor of the ledger's notices."""

SCORES = "scores"
"""The cursor of the dataset service's scores."""


@dataclass(frozen=True, slots=True)
class Funding:
    """What was decided on a credit.

    Attributes:
        transfer: The transfer's id.
        payer: Who paid; empty for minted units.
        quantity: Units.
        state: What became of it.
        pool: The pool made or added to; empty where none.
        reason: Why it cannot be used, in one sentence.
        reason_code: The same as an error reason's name.
        refund_transfer: The transfer that brought it back; empty until it is sent.
    """

    transfer: str
    payer: str
    quantity: int
    state: FundingState
    pool: str
    reason: str
    reason_code: str
    refund_transfer: str


def get(connection: Connection, transfer: str) -> Funding | None:
    """The decision on a transfer, or None."""
    row = connection.execute(select(fundings).where(fundings.c.transfer == transfer)).first()
    return None if row is None else _funding(row)


def accept(connection: Connection, credit: Credit, state: FundingState, pool: str) -> None:
    """Write that a credit made a pool or was added to one."""
    _insert(connection, credit, state, pool=pool)


def refuse(connection: Connection, credit: Credit, refusal: Refusal) -> None:
    """Write that a credit cannot be used: a refund to make, or for minted units none."""
    _insert(
        connection,
        credit,
        FundingState.REFUNDED if credit.payer else FundingState.KEPT,
        reason=refusal.reason,
        reason_code=refusal.reason_code,
    )


def refunds_due(connection: Connection) -> list[Funding]:
    """Refunds that are decided and not known to be sent, oldest first."""
    query = (
        select(fundings)
        .where(
            fundings.c.state == FundingState.REFUNDED.value, fundings.c.refund_transfer.is_(None)
        )
        .order_by(fundings.c.sequence)
    )
    return [_funding(row) for row in connection.execute(query)]


def refunded(connection: Connection, transfer: str, refund_transfer: str) -> None:
    """Keep the receipt of a refund."""
    connection.execute(
        update(fundings)
        .where(fundings.c.transfer == transfer)
        .values(refund_transfer=refund_transfer)
    )


def cursor(connection: Connection, name: str) -> int:
    """How far a stream has been read; 0 at the beginning."""
    return connection.scalar(select(cursors.c.value).where(cursors.c.name == name)) or 0


def lock_cursor(connection: Connection, name: str) -> int:
    """How far a stream has been read; nobody else moves it until the transaction ends."""
    upsert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    connection.execute(upsert(cursors).values(name=name, value=0).on_conflict_do_nothing())
    value = connection.scalar(
        select(cursors.c.value).where(cursors.c.name == name).with_for_update()
    )
    return value or 0


def move_cursor(connection: Connection, name: str, value: int) -> None:
    """Move a locked cursor on; it never goes back."""
    connection.execute(
        update(cursors).where(cursors.c.name == name, cursors.c.value < value).values(value=value)
    )


def reset_cursor(connection: Connection, name: str) -> None:
    """Read a stream from its beginning again."""
    connection.execute(update(cursors).where(cursors.c.name == name).values(value=0))


def _insert(
    connection: Connection,
    credit: Credit,
    state: FundingState,
    *,
    pool: str | None = None,
    reason: str = "",
    reason_code: str = "",
) -> None:
    connection.execute(
        insert(fundings).values(
            transfer=credit.transfer,
            payer=credit.payer,
            quantity=credit.quantity,
            time=credit.time,
            sequence=credit.sequence,
            state=state.value,
            pool=pool,
            reason=reason,
            reason_code=reason_code,
        )
    )


def _funding(row: Row[Any]) -> Funding:
    return Funding(
        transfer=row.transfer,
        payer=row.payer,
        quantity=row.quantity,
        state=FundingState(row.state),
        pool=row.pool or "",
        reason=row.reason,
        reason_code=row.reason_code,
        refund_transfer=row.refund_transfer or "",
    )

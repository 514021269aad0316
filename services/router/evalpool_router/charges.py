"""Which holds pay, and what is decided about them: plain functions on a transaction.

A hold is written when its request is taken up, so that it pays for one request only. What it is
charged is written once, before anything is captured.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from evalpool_router.hold import Charge, HeldUnits
from evalpool_router.schema import charges


def take_up(connection: Connection, hold: HeldUnits, now: datetime) -> bool:
    """Let a hold pay for a request; False where it has paid for another."""
    upsert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    statement = upsert(charges).values(
        hold=hold.id, held=hold.quantity, charged=None, settle_time=None, create_time=now
    )
    # Of two requests at the same moment one gets it.
    taken = statement.on_conflict_do_nothing().returning(charges.c.hold)
    return connection.execute(taken).first() is not None


def decide(connection: Connection, hold: str, quantity: int) -> None:
    """Write what a hold is charged; what was decided before stands."""
    connection.execute(
        update(charges)
        .where(charges.c.hold == hold, charges.c.charged.is_(None))
        .values(charged=quantity)
    )


def let_go(connection: Connection, before: datetime, under_way: Collection[str]) -> int:
    """Charge nothing for holds that were taken up before a moment for requests that are gone.

    Args:
        connection: The transaction.
        before: The moment.
        under_way: Holds whose requests are not gone.

    Returns:
        How many.
    """
    taken = connection.scalars(
        select(charges.c.hold).where(charges.c.charged.is_(None), charges.c.create_time < before)
    )
    gone = [hold for hold in taken if hold not in under_way]
    for hold in gone:
        decide(connection, hold, 0)
    return len(gone)


def due(connection: Connection) -> list[Charge]:
    """What is decided and not known to be done, oldest first."""
    rows = connection.execute(
        select(charges.c.hold, charges.c.charged)
        .where(charges.c.settle_time.is_(None), charges.c.charged.is_not(None))
        .order_by(charges.c.create_time, charges.c.hold)
    )
    return [Charge(row.hold, row.charged) for row in rows]


def settled(connection: Connection, hold: str, now: datetime) -> None:
    """Write that a decision is done."""
    connection.execute(update(charges).where(charges.c.hold == hold).values(settle_time=now))


def forget(connection: Connection, before: datetime) -> int:
    """Forget decisions that were done before a moment; gives how many.

    By then the ledger itself no longer gives these holds out as open.
    """
    return int(connection.execute(delete(charges).where(charges.c.settle_time < before)).rowcount)

"""The ledger's newest point, which every commit locks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select, update

from evalpool_runtime.start import CannotStart
from evalpool_token import schema
from evalpool_token.entries import Head


class AnotherLedger(CannotStart):
    """The database holds the ledger of another key."""


def claim(connection: Connection, ledger: str) -> None:
    """Say whose ledger this is at the first start, and check it at every other.

    Ids of transfers depend on the ledger's address, so a database must keep its key.

    Raises:
        AnotherLedger: The database is the ledger of another key.
    """
    present = connection.execute(select(schema.head.c.ledger).with_for_update()).scalar_one()
    if not present:
        connection.execute(update(schema.head).values(ledger=ledger))
    elif present != ledger:
        raise AnotherLedger(
            f"the database is the ledger of {present}, and the service's key is {ledger}; give it "
            "the key file that it was begun with, or another database"
        )


def lock(connection: Connection) -> Head:
    """The newest point of the ledger, locked until the transaction ends."""
    return _head(connection.execute(select(schema.head).with_for_update()).one())


def read(connection: Connection) -> Head:
    """The newest point of the ledger."""
    return _head(connection.execute(select(schema.head)).one())


def move(connection: Connection, to: Head) -> None:
    """Move the locked head on."""
    connection.execute(
        update(schema.head).values(
            sequence=to.sequence, hash=to.hash, supply=to.supply, commit_time=to.time
        )
    )


def _head(row: Row[Any]) -> Head:
    return Head(row.sequence, row.hash, row.supply, row.commit_time)

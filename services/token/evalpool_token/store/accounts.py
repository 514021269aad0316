"""Accounts: what each owner has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from evalpool_token import schema
from evalpool_token.entries import Account

# SQLite takes at most 32,766 parameters in a statement.
_KEYS_A_QUERY = 1000


def read(connection: Connection, address: str) -> tuple[Account, int]:
    """One account, an unknown one being empty, and the sequence number at which it was so."""
    # One statement, so that both are of one moment on PostgreSQL too.
    row = connection.execute(
        select(schema.head.c.sequence, schema.accounts.c.balance, schema.accounts.c.held)
        .select_from(schema.head)
        .outerjoin(schema.accounts, schema.accounts.c.address == address)
    ).one()
    return Account(address, row.balance or 0, row.held or 0), row.sequence


def read_some(connection: Connection, addresses: Sequence[str]) -> list[Account]:
    """The accounts that exist among some addresses."""
    found = []
    for begin in range(0, len(addresses), _KEYS_A_QUERY):
        keys = addresses[begin : begin + _KEYS_A_QUERY]
        rows = connection.execute(
            select(schema.accounts).where(schema.accounts.c.address.in_(keys))
        )
        found += [Account(row.address, row.balance, row.held) for row in rows]
    return found


def everything(connection: Connection) -> list[Account]:
    """Every account, for the audit."""
    rows = connection.execute(select(schema.accounts).order_by(schema.accounts.c.address))
    return [Account(row.address, row.balance, row.held) for row in rows]


def write(connection: Connection, accounts: Sequence[Account]) -> None:
    """Write accounts, new ones and known ones."""
    dialect: Any = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(schema.accounts)
    statement = statement.on_conflict_do_update(
        index_elements=["address"],
        set_={"balance": statement.excluded.balance, "held": statement.excluded.held},
    )
    connection.execute(
        statement,
        [{"address": a.address, "balance": a.balance, "held": a.held} for a in accounts],
    )

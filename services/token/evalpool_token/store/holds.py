"""Holds: units set aside."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from evalpool_runtime.errors import NotFound, reasons
from evalpool_token import schema
from evalpool_token.entries import Hold, HoldState


def require(connection: Connection, hold: str, party: str) -> Hold:
    """The hold with an id, for its holder or its recipient.

    Raises:
        NotFound: There is none, or the caller is not a party to it.
    """
    row = connection.execute(select(schema.holds).where(schema.holds.c.id == hold)).first()
    if row is None or party not in (row.holder, row.recipient):
        raise NotFound(
            reasons.ERROR_REASON_HOLD_NOT_FOUND,
            "id: you are party to no hold with this id; Hold answers with the id",
        )
    return _hold(row)


def due(connection: Connection, now: datetime, limit: int, holder: str | None = None) -> list[Hold]:
    """Open holds whose time has passed, oldest first: all, or one holder's."""
    conditions = [schema.holds.c.state == HoldState.OPEN, schema.holds.c.expire_time <= now]
    if holder is not None:
        conditions.append(schema.holds.c.holder == holder)
    rows = connection.execute(
        select(schema.holds)
        .where(*conditions)
        .order_by(schema.holds.c.expire_time, schema.holds.c.id)
        .limit(limit)
    )
    return [_hold(row) for row in rows]


def everything(connection: Connection) -> list[Hold]:
    """Every hold, for the audit."""
    return [_hold(row) for row in connection.execute(select(schema.holds))]


def write(connection: Connection, hold: Hold) -> None:
    """Write a hold that was made, or one that was settled."""
    values = {
        "holder": hold.holder,
        "recipient": hold.recipient,
        "quantity": hold.quantity,
        "captured": hold.captured,
        "state": hold.state.value,
        "create_time": hold.create_time,
        "expire_time": hold.expire_time,
    }
    if hold.state is HoldState.OPEN:
        connection.execute(insert(schema.holds).values(id=hold.id, **values))
    else:
        connection.execute(
            update(schema.holds).where(schema.holds.c.id == hold.id).values(**values)
        )


def _hold(row: Row[Any]) -> Hold:
    return Hold(
        id=row.id,
        holder=row.holder,
        recipient=row.recipient,
        quantity=row.quantity,
        captured=row.captured,
        state=HoldState(row.state),
        create_time=row.create_time,
        expire_time=row.expire_time,
    )

"""Calls that their callers have named, remembered for ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, select, update
from sqlalchemy.dialects import postgresql, sqlite

from evalpool_dataset import schema
from evalpool_dataset.request_key import RequestKey
from evalpool_runtime.errors import AlreadyExists, reasons

_table = schema.requests


@dataclass(frozen=True, slots=True)
class StartedRun:
    """The run that a call has started, or found.

    Attributes:
        run: The run's id.
        version: The number of the version that it was asked for on.
    """

    run: str
    version: int


def find_run(connection: Connection, caller: str, key: RequestKey | None) -> StartedRun | None:
    """The run that a call has started before; None for a new call, and for one without a name.

    Raises:
        AlreadyExists: The caller has named a call with other content so.
    """
    if key is None:
        return None
    row = connection.execute(select(_table).where(_is(caller, key))).first()
    if row is None:
        return None
    if row.fingerprint != key.fingerprint:
        raise AlreadyExists(
            reasons.ERROR_REASON_REQUEST_ID_REUSED,
            f'request_id: "{key.id}" was used before with other content; choose a new one',
            request_id=key.id,
        )
    return None if row.run is None else StartedRun(row.run, row.version)


def claim(
    connection: Connection, caller: str, key: RequestKey | None, now: datetime
) -> StartedRun | None:
    """Take a call's name, before the call is carried out in the same transaction.

    Returns:
        The run that the call has started before; None where there is none.

    Raises:
        AlreadyExists: The caller has named a call with other content so.
    """
    if key is None:
        return None
    insert_of = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    # Of two calls at once the second waits here for the first.
    taken = connection.execute(
        insert_of(_table)
        .values(caller=caller, request_id=key.id, fingerprint=key.fingerprint, create_time=now)
        .on_conflict_do_nothing()
        .returning(_table.c.caller)
    ).first()
    return None if taken is not None else find_run(connection, caller, key)


def record(
    connection: Connection, caller: str, key: RequestKey | None, run: str, version: int
) -> None:
    """Remember which run a call has started, whose name was claimed in the same transaction."""
    if key is not None:
        connection.execute(update(_table).where(_is(caller, key)).values(run=run, version=version))


def _is(caller: str, key: RequestKey) -> ColumnElement[Any]:
    return (_table.c.caller == caller) & (_table.c.request_id == key.id)

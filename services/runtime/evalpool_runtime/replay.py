"""Each call with an effect happens once per bearer token.

The token's `jti` is remembered, with a fingerprint of the request and the answer, in the effect's
own transaction: the same call again is a retry and gets the first answer; the same `jti` with
another content is refused. Needed for as long as the token could be accepted, and swept after that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from google.protobuf.message import Message
from sqlalchemy import (
    Column,
    Connection,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    delete,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from evalpool_runtime.authentication import SKEW
from evalpool_runtime.call import Call, current_call
from evalpool_runtime.columns import UtcDateTime
from evalpool_runtime.database import Database
from evalpool_runtime.errors import AlreadyExists, reasons

M = TypeVar("M", bound=Message)


def seen_tokens_table(metadata: MetaData) -> Table:
    """The table of tokens seen, for a service's schema."""
    return Table(
        "seen_tokens",
        metadata,
        Column("address", Text, nullable=False),
        Column("jti", Text, nullable=False),
        Column("method", Text, nullable=False),
        Column("fingerprint", Text, nullable=False),
        Column("response", LargeBinary, nullable=False),
        Column("expires", UtcDateTime, nullable=False, index=True),
        PrimaryKeyConstraint("address", "jti"),
    )


_table = seen_tokens_table(MetaData())


async def once(database: Database, response_type: type[M], work: Callable[[Connection], M]) -> M:
    """Do the work of the current call in one transaction, unless it has been done.

    A call with a stream of requests has no request; set `call.request` to what stands for it.

    Args:
        database: Where the effect and the token are stored, together.
        response_type: The method's response message.
        work: The effect; gets the transaction, gives the response.

    Raises:
        AlreadyExists: The token was used for a call with other content.
    """
    call = current_call()

    def transact(connection: Connection) -> M:
        # Claimed before the work: of two calls at once the second waits here for the first.
        if not _claim(connection, call):
            known = _recall(connection, call, response_type)
            if known is None:
                raise _Vanished
            return known
        response = work(connection)
        connection.execute(
            update(_table)
            .where(_table.c.address == call.address, _table.c.jti == call.jti)
            .values(response=response.SerializeToString())
        )
        return response

    while True:
        # A sweep may forget the token between the refused claim and the look at its answer.
        with contextlib.suppress(_Vanished):
            return await database.write(transact)


class _Vanished(Exception):
    """The claim was refused for a token that is no longer there."""


def _claim(connection: Connection, call: Call) -> bool:
    insert_of = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    claim = insert_of(_table).values(
        address=call.address,
        jti=call.jti,
        method=call.method,
        fingerprint=call.fingerprint,
        response=b"",
        expires=call.expires + SKEW,
    )
    claimed = connection.execute(claim.on_conflict_do_nothing().returning(_table.c.jti))
    return claimed.first() is not None


def _recall(connection: Connection, call: Call, response_type: type[M]) -> M | None:
    """The answer that this token's call got before, or None.

    Raises:
        AlreadyExists: The token was used for a call with other content.
    """
    row = connection.execute(
        select(_table.c.fingerprint, _table.c.response).where(
            _table.c.address == call.address, _table.c.jti == call.jti
        )
    ).first()
    if row is None:
        return None
    if row.fingerprint != call.fingerprint:
        raise AlreadyExists(
            reasons.ERROR_REASON_TOKEN_REPLAYED,
            "authorization: the bearer token was used for another call; sign a new token for each "
            "call",
        )
    return response_type.FromString(row.response)


def forget_expired(connection: Connection, now: datetime) -> int:
    """Delete tokens that can no longer be accepted; returns how many."""
    result = connection.execute(delete(_table).where(_table.c.expires < now - SKEW))
    return int(result.rowcount)

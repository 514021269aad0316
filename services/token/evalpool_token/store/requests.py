"""Requests with an id, remembered for ever."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from evalpool_runtime.errors import AlreadyExists, reasons
from evalpool_token import schema
from evalpool_token.entries import Entry
from evalpool_token.store import log


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """What a request made.

    Attributes:
        entries: Its entries, with their postings.
        supply: Units in existence right after it.
    """

    entries: tuple[Entry, ...]
    supply: int


def find(
    connection: Connection, sender: str, request_id: str, fingerprint: str
) -> RecordedRequest | None:
    """What a request made before; None for a new request. Call it under the lock.

    Raises:
        AlreadyExists: The request had other content.
    """
    row = connection.execute(
        select(schema.requests).where(
            schema.requests.c.sender == sender, schema.requests.c.request_id == request_id
        )
    ).first()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise AlreadyExists(
            reasons.ERROR_REASON_REQUEST_ID_REUSED,
            f'request_id: "{request_id}" was used before with other content; choose a new one',
            request_id=request_id,
        )
    entries = log.between(connection, row.first_sequence, row.last_sequence)
    return RecordedRequest(tuple(entries), row.supply)


def record(
    connection: Connection, sender: str, request_id: str, fingerprint: str, made: RecordedRequest
) -> None:
    """Remember what a request made, for ever."""
    connection.execute(
        insert(schema.requests).values(
            sender=sender,
            request_id=request_id,
            fingerprint=fingerprint,
            first_sequence=made.entries[0].sequence,
            last_sequence=made.entries[-1].sequence,
            supply=made.supply,
        )
    )

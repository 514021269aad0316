"""Times and spans between Python and the contract's messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(moment: datetime) -> Timestamp:
    """An aware moment as a Timestamp."""
    message = Timestamp()
    message.FromDatetime(moment.astimezone(UTC).replace(tzinfo=None))
    return message


def from_timestamp(message: Timestamp) -> datetime:
    """A Timestamp as an aware moment in UTC."""
    return message.ToDatetime(tzinfo=UTC)


def duration(span: timedelta) -> Duration:
    """A span as a Duration."""
    message = Duration()
    message.FromTimedelta(span)
    return message


def from_duration(message: Duration) -> timedelta:
    """A Duration as a span."""
    return message.ToTimedelta()

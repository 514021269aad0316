"""The worker's settings that calls have set."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, insert, select

from evalpool_worker.schema import settings


def read_setting(connection: Connection, name: str) -> Any:
    """A setting's value; None where no call has set it."""
    return connection.scalar(select(settings.c.value).where(settings.c.name == name))


def write_setting(connection: Connection, name: str, value: Any) -> None:
    """Set a setting."""
    connection.execute(delete(settings).where(settings.c.name == name))
    connection.execute(insert(settings).values(name=name, value=value))

"""Askings: the datasets that runs were asked for on. Their owners see the runs.

Datasets with the same content share a version's digest, and so the runs on it: the work is done
once. Who may see a run follows from these rows, not from whose dataset was the first.
"""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import Connection, Select, insert, select

from evalpool_dataset import schema
from evalpool_dataset.store.definitions import Version, version_by_id

T = TypeVar("T", bound=tuple[Any, ...])

_table = schema.askings


class NotAsked(LookupError):
    """A run was asked for on none of an owner's datasets."""


def add(connection: Connection, run: str, version: int) -> bool:
    """Note that a run was asked for on a dataset's version; gives whether that is new.

    The run is to be locked.
    """
    asked = (_table.c.run == run) & (_table.c.version == version)
    if connection.execute(select(_table.c.id).where(asked)).first() is not None:
        return False
    connection.execute(insert(_table).values(run=run, version=version))
    return True


def first_version(connection: Connection, run: str, owner: str | None) -> Version:
    """The version that a run was first asked for on.

    Args:
        connection: The transaction.
        run: The run's id.
        owner: On this owner's datasets; None for everybody's.

    Raises:
        NotAsked: It was asked for on none of them.
    """
    asked = _of_owner(select(_table.c.version), owner).where(_table.c.run == run)
    version = connection.scalar(asked.order_by(_table.c.id).limit(1))
    if version is None:
        raise NotAsked(run)
    return version_by_id(connection, version)


def runs_of(owner: str) -> Select[tuple[str]]:
    """The ids of the runs that were asked for on an owner's datasets, as a part of a query."""
    return _of_owner(select(_table.c.run), owner)


def _of_owner(query: Select[T], owner: str | None) -> Select[T]:
    if owner is None:
        return query
    return (
        query.join(schema.versions, schema.versions.c.id == _table.c.version)
        .join(schema.definitions, schema.definitions.c.id == schema.versions.c.definition)
        .where(schema.definitions.c.owner == owner)
    )

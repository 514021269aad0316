"""What the router keeps: plain functions on a transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from sqlalchemy import Connection, and_, case, delete, func, insert, or_, select, update

from evalpool_router.models import Model
from evalpool_router.scheduler import Kind
from evalpool_router.schema import last_multiplier, models, uploads, workers


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """What is kept of a worker.

    Attributes:
        address: Its address.
        kinds: The work that the operator's call admitted it for; None where there was no call.
        draining: Whether the operator lets it drain.
        generation: The number of its newest registration.
    """

    address: str
    kinds: frozenset[Kind] | None
    draining: bool
    generation: int


def read_workers(connection: Connection) -> list[WorkerRecord]:
    """All workers that have ever been admitted by a call, drained or registered."""
    return [
        WorkerRecord(
            row.address,
            None if row.kinds is None else frozenset(Kind[name] for name in row.kinds),
            row.draining,
            row.generation,
        )
        for row in connection.execute(select(workers).order_by(workers.c.address))
    ]


def set_worker_kinds(connection: Connection, address: str, kinds: Iterable[Kind]) -> None:
    """Write for which work the operator admits a worker."""
    _ensure_worker(connection, address)
    connection.execute(
        update(workers)
        .where(workers.c.address == address)
        .values(kinds=sorted(kind.name for kind in kinds))
    )


def set_worker_draining(connection: Connection, address: str, draining: bool) -> None:
    """Write whether the operator lets a worker drain."""
    _ensure_worker(connection, address)
    connection.execute(
        update(workers).where(workers.c.address == address).values(draining=draining)
    )


def next_generation(connection: Connection, address: str) -> int:
    """Count a registration of a worker, and give its number."""
    _ensure_worker(connection, address)
    generation = 1 + int(
        connection.execute(
            select(workers.c.generation).where(workers.c.address == address).with_for_update()
        ).scalar_one()
    )
    connection.execute(
        update(workers).where(workers.c.address == address).values(generation=generation)
    )
    return generation


def _ensure_worker(connection: Connection, address: str) -> None:
    known = connection.scalar(select(workers.c.address).where(workers.c.address == address))
    if known is None:
        connection.execute(
            insert(workers).values(address=address, kinds=None, draining=False, generation=0)
        )


def read_model(connection: Connection, digest: str) -> Model | None:
    """The uploaded model with this digest."""
    row = connection.execute(select(models).where(models.c.digest == digest)).first()
    return None if row is None else Model(**row._mapping)


def read_model_by_name(connection: Connection, name: str, owner: str) -> Model | None:
    """The uploaded model of this name.

    Args:
        connection: The transaction.
        name: The name.
        owner: Whose goes first where there are several; after that, the one that came first.
    """
    row = connection.execute(
        select(models)
        .where(models.c.name == name)
        .order_by(
            case((models.c.owner == owner, 0), else_=1), models.c.create_time, models.c.digest
        )
        .limit(1)
    ).first()
    return None if row is None else Model(**row._mapping)


def read_models(connection: Connection, after: tuple[str, str], limit: int) -> list[Model]:
    """Uploaded models by name and digest.

    Args:
        connection: The transaction.
        after: Name and digest of the last one of the page before; empty for the first page.
        limit: How many at most.
    """
    name, digest = after
    query = (
        select(models)
        .where(or_(models.c.name > name, and_(models.c.name == name, models.c.digest > digest)))
        .order_by(models.c.name, models.c.digest)
        .limit(limit)
    )
    return [Model(**row._mapping) for row in connection.execute(query)]


def insert_model(connection: Connection, model: Model) -> Model:
    """Keep an uploaded model, and give what is kept: the first upload of a digest stands."""
    kept = read_model(connection, model.digest)
    if kept is None:
        connection.execute(
            insert(models).values(
                digest=model.digest,
                owner=model.owner,
                name=model.name,
                size_bytes=model.size_bytes,
                license=model.license,
                context_length=model.context_length,
                quantisation=model.quantisation,
                create_time=model.create_time,
            )
        )
    return kept or model


def read_upload(connection: Connection, owner: str, digest: str) -> int | None:
    """The announced size of an owner's open upload; None where there is none."""
    return connection.scalar(
        select(uploads.c.size_bytes).where(uploads.c.owner == owner, uploads.c.digest == digest)
    )


def open_upload(
    connection: Connection, owner: str, digest: str, size_bytes: int, now: datetime
) -> None:
    """Write that an owner is uploading, so that the bytes count."""
    close_upload(connection, owner, digest)
    connection.execute(
        insert(uploads).values(owner=owner, digest=digest, size_bytes=size_bytes, update_time=now)
    )


def close_upload(connection: Connection, owner: str, digest: str) -> None:
    """Forget an upload."""
    connection.execute(delete(uploads).where(uploads.c.owner == owner, uploads.c.digest == digest))


def forget_uploads(connection: Connection, before: datetime) -> int:
    """Forget uploads that nobody went on with; gives how many."""
    return int(connection.execute(delete(uploads).where(uploads.c.update_time < before)).rowcount)


def bytes_taken(connection: Connection, *, owner: str | None, without: tuple[str, str]) -> int:
    """Bytes of models and open uploads.

    Args:
        connection: The transaction.
        owner: Of this owner only; None: of all.
        without: Owner and digest of an upload that is not to count.
    """
    stored = select(func.coalesce(func.sum(models.c.size_bytes), 0))
    coming = select(func.coalesce(func.sum(uploads.c.size_bytes), 0)).where(
        or_(uploads.c.owner != without[0], uploads.c.digest != without[1])
    )
    if owner is not None:
        stored = stored.where(models.c.owner == owner)
        coming = coming.where(uploads.c.owner == owner)
    return int(connection.execute(stored).scalar_one()) + int(
        connection.execute(coming).scalar_one()
    )


def digests_in_use(connection: Connection) -> frozenset[str]:
    """Digests of models that are kept or on their way."""
    found = set(connection.scalars(select(models.c.digest)))
    return frozenset(found | set(connection.scalars(select(uploads.c.digest))))


def read_last_multiplier(connection: Connection) -> Fraction:
    """The multiplier of the request that was dispatched last; 1 where none ever was."""
    return Fraction(connection.scalar(select(last_multiplier.c.multiplier)) or 1)


def keep_last_multiplier(connection: Connection, multiplier: Fraction) -> None:
    """Write the multiplier of the request that was dispatched last, in place of the one before."""
    connection.execute(delete(last_multiplier))
    connection.execute(insert(last_multiplier).values(id=1, multiplier=str(multiplier)))

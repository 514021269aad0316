"""A data directory as `evalpool up` leaves it, made by the services' own migrations."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from evalpool.identity import Identity
from evalpool_runtime.database import Database
from evalpool_runtime.migrations import migrate

FOLDERS = ("benchmark", "dataset", "router", "worker", "worker-2", "embedding", "token")
UPLOADED = b"GGUF, and what follows"


async def _migrate(path: Path, service: str) -> None:
    database = Database.open(f"sqlite:///{path}")
    await migrate(database, f"evalpool_{service}.migrations")
    await database.close()


def make_data_directory(data: Path) -> Path:
    """A data directory whose services do not run, with one uploaded model."""
    for folder in FOLDERS:
        service = folder.partition("-")[0]
        (data / folder).mkdir(parents=True)
        asyncio.run(_migrate(data / folder / f"{service}.db", service))
        Identity.generate().save(data / "keys" / f"{folder}.json")
    Identity.generate().save(data / "keys" / "operator.json")
    digest = hashlib.sha256(UPLOADED).hexdigest()
    place = data / "router" / "repository" / "sha256" / digest[:2] / digest
    place.parent.mkdir(parents=True)
    place.write_bytes(UPLOADED)
    place.chmod(0o444)
    with closing(sqlite3.connect(data / "router" / "router.db")) as router:
        router.execute(
            "INSERT INTO models VALUES (?, 'owner', 'name', ?, '', 0, '', '2026-01-01 00:00:00')",
            (digest, len(UPLOADED)),
        )
        router.commit()
    # What is not to be copied.
    (data / "models").mkdir()
    (data / "models" / "fetched").write_bytes(b"again")
    (data / "logs").mkdir()
    return data

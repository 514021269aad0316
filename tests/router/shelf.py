"""A repository and its uploads, on a database and a folder of their own."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from pathlib import Path

from evalpool.models import ModelStore
from evalpool_router import store
from evalpool_router.models import Model
from evalpool_router.repository import Repository
from evalpool_router.uploads import Announcement, Limits, Uploads
from evalpool_runtime.call import calling
from evalpool_runtime.clock import ManualClock
from evalpool_runtime.database import Database
from tests.evalpool.models.gguf_writer import Gguf

ALICE, BOB = "alice", "bob"
CONTENT = Gguf().to_bytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SIZE = len(CONTENT)


class Shelf:
    """A repository with what it stands on."""

    def __init__(self, database: Database, root: Path, **limits: int) -> None:
        self.database = database
        self.clock = ManualClock()
        self.files = ModelStore(root, clock=lambda: self.clock.now().timestamp())
        self.repository = Repository(database, self.files)
        self.uploads = Uploads(
            database,
            self.files,
            self.repository,
            Limits(
                owner_bytes=limits.get("owner_bytes", 10_000),
                total_bytes=limits.get("total_bytes", 100_000),
                keep_parts=timedelta(days=7),
            ),
            self.clock,
        )

    async def upload(
        self,
        content: bytes = CONTENT,
        *,
        owner: str = ALICE,
        digest: str | None = None,
        size: int | None = None,
        offset: int = 0,
        name: str = "tiny",
        chunk: int = 100,
    ) -> tuple[str, bool]:
        """Send a content from an offset on; gives the owner of what is kept, and whether it was."""
        announced = Announcement(
            digest or hashlib.sha256(content).hexdigest(),
            len(content) if size is None else size,
            name,
            offset,
        )
        rest = content[offset:]
        pieces = [rest[at : at + chunk] for at in range(0, len(rest), chunk)]
        return await self.take(owner, announced, stream(pieces))

    async def take(
        self, owner: str, announced: Announcement, chunks: AsyncIterator[bytes]
    ) -> tuple[str, bool]:
        """Send chunks in a call of their own; gives the same as `upload`."""
        with calling(owner):
            response = await self.uploads.take(owner, announced, chunks)
        return response.model.owner, response.existed

    async def find(self, text: str, *, caller: str = BOB) -> Model:
        return await self.repository.find(text, field="model", caller=caller)

    async def runnable(self, text: str, *, caller: str, trusted: bool) -> Model:
        return await self.repository.find_runnable(
            text, field="model.digest", caller=caller, trusted=trusted
        )

    def kept(self) -> list[str]:
        return [entry.digest for entry in self.files.entries()]

    async def taken(self, owner: str) -> int:
        return await self.database.read(
            lambda tx: store.bytes_taken(tx, owner=owner, without=("", ""))
        )


async def stream(pieces: Iterable[bytes], *, break_off: bool = False) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if break_off:
        raise ConnectionError("the line broke")

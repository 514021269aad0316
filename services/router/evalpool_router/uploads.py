"""How models come into the herd: uploaded by their owners, checked, and kept once.

A file is checked against its digest and its GGUF header before it is kept. It is kept once whoever
sends it; the first uploader owns it. What is on its way can be resumed.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import ParamSpec, TypeVar

from sqlalchemy import Connection

from evalpool.models import (
    DigestMismatch,
    GgufHeader,
    InvalidGguf,
    ModelInUse,
    ModelStore,
    SizeMismatch,
    StoreFull,
    Upload,
    read_gguf,
)
from evalpool.router.v1 import router_pb2
from evalpool.values import Violation
from evalpool_router import store
from evalpool_router.models import Model
from evalpool_router.packing import pack_model
from evalpool_router.repository import Repository
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database
from evalpool_runtime.errors import (
    Aborted,
    DomainError,
    FailedPrecondition,
    InvalidRequest,
    ResourceExhausted,
    reasons,
)
from evalpool_runtime.replay import once

_MAGIC = b"GGUF"

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Announcement:
    """What an uploader says of the file that follows.

    Attributes:
        digest: Its SHA-256.
        size_bytes: Its size, at least 1.
        name: Its name, for people.
        offset: Where the bytes that follow begin.
    """

    digest: str
    size_bytes: int
    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be uploaded.

    Attributes:
        owner_bytes: By one owner in all.
        total_bytes: By everybody together.
        keep_parts: How long an unfinished upload is kept.
    """

    owner_bytes: int
    total_bytes: int
    keep_parts: timedelta


class Uploads:
    """Takes files in.

    Args:
        database: Where owners and open uploads are kept.
        files: Where files are kept; nobody else's, and without a bound, so that it never evicts.
        repository: Knows what is kept already.
        limits: How much may be uploaded.
        clock: What time it is.
    """

    def __init__(
        self,
        database: Database,
        files: ModelStore,
        repository: Repository,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._database = database
        self._files = files
        self._repository = repository
        self._limits = limits
        self._clock = clock
        self._opening = asyncio.Lock()

    async def offset(self, owner: str, digest: str) -> tuple[int, bool]:
        """How many bytes of an owner's upload are here, and whether the file is complete."""
        kept = await self._repository.find_digest(digest)
        if kept is not None:
            return kept.size_bytes, True
        size = await self._database.read(lambda tx: store.read_upload(tx, owner, digest))
        if size is None:
            return 0, False
        return await asyncio.to_thread(self._files.upload_offset, digest, size, owner=owner), False

    async def take(
        self, owner: str, announced: Announcement, chunks: AsyncIterator[bytes]
    ) -> router_pb2.UploadModelResponse:
        """Take a file, in the call that is being served.

        Args:
            owner: Who sends it.
            announced: What it is.
            chunks: Its bytes, from the announced offset; not read where the file is here already.

        Raises:
            AlreadyExists: The call's token was used for another call.
            ResourceExhausted: The owner's quota or the repository's does not suffice.
            Aborted: The offset is not where the stored part ends, or bytes are missing.
            InvalidRequest: There are more bytes than announced.
            FailedPrecondition: The bytes have another digest, or are no whole GGUF.
        """
        kept = await self._repository.find_digest(announced.digest)
        if kept is not None:
            found = router_pb2.UploadModelResponse(model=pack_model(kept), existed=True)
            return await once(self._database, router_pb2.UploadModelResponse, lambda _: found)
        await self._open(owner, announced)
        try:
            with await self._begin(owner, announced) as upload:
                if announced.offset != upload.offset:
                    raise _wrong_offset(upload.offset, "begin there")
                header = await self._receive(upload, announced, chunks)
        except _Spoilt as spoilt:
            await self._database.write(lambda tx: store.close_upload(tx, owner, announced.digest))
            raise spoilt.error from spoilt
        return await self._keep(owner, announced, header)

    async def _open(self, owner: str, announced: Announcement) -> None:
        """Count the announced bytes, if there is room for them."""

        def work(connection: Connection) -> None:
            this = (owner, announced.digest)
            for whose, most, reason in (
                (owner, self._limits.owner_bytes, "your quota of uploads"),
                (None, self._limits.total_bytes, "the repository"),
            ):
                taken = store.bytes_taken(connection, owner=whose, without=this)
                if taken + announced.size_bytes > most:
                    raise ResourceExhausted(
                        reasons.ERROR_REASON_UPLOAD_QUOTA,
                        f"header.size_bytes: {reason} has {max(most - taken, 0)} of {most} bytes "
                        f"left, and the file has {announced.size_bytes}; upload a smaller file",
                        quota=str(most),
                        taken=str(taken),
                    )
            store.open_upload(
                connection, owner, announced.digest, announced.size_bytes, self._clock.now()
            )

        # One at a time: two uploads must not both see the room that is there for one.
        async with self._opening:
            await self._database.write(work)

    async def _begin(self, owner: str, announced: Announcement) -> Upload:
        try:
            return await _in_thread(
                self._files.begin_upload, announced.digest, announced.size_bytes, owner=owner
            )
        except ModelInUse as error:
            raise Aborted(
                reasons.ERROR_REASON_UPLOAD_OFFSET,
                "header.digest: another call of yours is sending this file; wait until it has "
                "ended, and ask GetUpload",
            ) from error
        except (OSError, StoreFull) as error:
            raise _no_room(error) from error

    async def _receive(
        self, upload: Upload, announced: Announcement, chunks: AsyncIterator[bytes]
    ) -> GgufHeader:
        found: list[GgufHeader] = []
        beginning = b"" if upload.offset == 0 else _MAGIC
        try:
            async for chunk in chunks:
                if len(beginning) < len(_MAGIC):
                    beginning = (beginning + chunk)[: len(_MAGIC)]
                    if not _MAGIC.startswith(beginning):
                        await _in_thread(upload.discard)
                        raise InvalidGguf("magic", 0, "the file does not begin with GGUF")
                await _in_thread(upload.write, chunk)
            if upload.offset < announced.size_bytes:
                raise _wrong_offset(upload.offset, "go on there")
            await _in_thread(upload.commit, lambda path: found.append(read_gguf(path)))
        except InvalidGguf as error:
            raise _Spoilt(
                FailedPrecondition(
                    reasons.ERROR_REASON_INVALID_GGUF,
                    f"chunk: the file is no valid GGUF: {error}; send a whole GGUF file",
                    field=error.field,
                )
            ) from error
        except DigestMismatch as error:
            raise _Spoilt(
                FailedPrecondition(
                    reasons.ERROR_REASON_DIGEST_MISMATCH,
                    f"header.digest: the bytes that came have the SHA-256 {error.actual}; nothing "
                    "was kept, send the right file from its beginning",
                    expected=error.expected,
                    actual=error.actual,
                )
            ) from error
        except SizeMismatch as error:
            violation = Violation("header.size_bytes", f"{error}; give the file's size")
            raise _Spoilt(InvalidRequest([violation])) from error
        except (OSError, StoreFull) as error:
            raise _no_room(error) from error
        return found[0]

    async def _keep(
        self, owner: str, announced: Announcement, header: GgufHeader
    ) -> router_pb2.UploadModelResponse:
        model = Model(
            digest=announced.digest,
            name=announced.name,
            owner=owner,
            size_bytes=announced.size_bytes,
            license=header.license or "",
            context_length=header.context_length or 0,
            quantisation=header.quantisation,
            create_time=self._clock.now(),
        )

        def work(connection: Connection) -> router_pb2.UploadModelResponse:
            kept = store.insert_model(connection, model)
            store.close_upload(connection, owner, announced.digest)
            return router_pb2.UploadModelResponse(
                model=pack_model(kept), existed=kept.owner != owner
            )

        return await once(self._database, router_pb2.UploadModelResponse, work)

    async def sweep(self) -> None:
        """Forget unfinished uploads that nobody went on with, and files that nobody owns."""
        before = self._clock.now() - self._limits.keep_parts
        await self._database.write(lambda tx: store.forget_uploads(tx, before))

        def remove_strays(used: frozenset[str]) -> None:
            for entry in self._files.entries():
                if entry.digest not in used:
                    self._files.remove(entry.digest)
            self._files.clean()

        # An upload that is open is in use, and none can be opened meanwhile.
        async with self._opening:
            used = await self._database.read(store.digests_in_use)
            await asyncio.to_thread(remove_strays, used)


class _Spoilt(Exception):
    """An upload of which nothing is kept."""

    def __init__(self, error: DomainError) -> None:
        super().__init__(error.message)
        self.error = error


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking work in a thread, and be there when it ends even if the caller goes.

    The file is written by one thread at a time: it must not be closed under one that still writes.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled() and running.exception() is None:
            result = running.result()
            if isinstance(result, Upload):
                result.close()
        raise


def _wrong_offset(offset: int, remedy: str) -> Aborted:
    return Aborted(
        reasons.ERROR_REASON_UPLOAD_OFFSET,
        f"header.offset: the stored part ends at {offset}; {remedy}",
        offset=str(offset),
    )


def _no_room(error: OSError | StoreFull) -> DomainError:
    if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise error
    return ResourceExhausted(
        reasons.ERROR_REASON_OVERLOADED,
        "the repository's disk is full; tell the router's operator, and resume later",
        retry_after=60.0,
    )

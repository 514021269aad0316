"""The models of the herd: the catalogue's, and those that people have uploaded.

An uploaded file is checked against its digest and its GGUF header before it is kept. It is kept
once whoever sends it; the first uploader owns it. What is on its way can be resumed.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ParamSpec, TypeAlias, TypeVar

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
from evalpool.values import Violation
from evalpool_router import store
from evalpool_router.catalogue import catalogue_models, find_in_catalogue
from evalpool_router.models import Model
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database
from evalpool_runtime.errors import (
    Aborted,
    DomainError,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    reasons,
)

CHUNK_BYTES = 1024 * 1024
HERD_SOURCE = "herd:"
_MAGIC = b"GGUF"

Cursor: TypeAlias = tuple[int, str, str]
"""How many of the catalogue's models have been listed; the last listed upload's name and digest."""

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


class Repository:
    """Keeps uploaded models, and knows the catalogue.

    Args:
        database: Where owners are kept.
        files: Where files are kept; nobody else's, and without a bound, so that it never evicts.
        limits: How much may be uploaded.
        clock: What time it is.
    """

    def __init__(self, database: Database, files: ModelStore, limits: Limits, clock: Clock) -> None:
        self._database = database
        self._files = files
        self._limits = limits
        self._clock = clock
        # Uploaded models never change, so what was read once stays right.
        self._known: dict[str, Model] = {}
        self._opening = asyncio.Lock()

    # Looking up

    async def find(self, text: str) -> Model:
        """The model with this digest or this name; the catalogue's goes first.

        Raises:
            NotFound: There is none.
        """
        model = find_in_catalogue(text) or await self._uploaded(text)
        if model is None:
            model = await self._database.read(lambda tx: store.read_model_by_name(tx, text))
        if model is None:
            raise NotFound(
                reasons.ERROR_REASON_MODEL_NOT_FOUND,
                f'the herd knows no model "{text[:80]}"; upload it, or name one of the catalogue',
            )
        return model

    async def find_runnable(self, text: str, *, caller: str, trusted: bool) -> Model:
        """As `find`, for a model that the caller wants to run.

        Args:
            text: The model's digest or name.
            caller: Who wants to run it.
            trusted: Whether the caller may run everybody's models.

        Raises:
            NotFound: There is none.
            PermissionDenied: It was uploaded by somebody else.
            FailedPrecondition: It is in the catalogue without a digest.
        """
        model = await self.find(text)
        if model.owner and model.owner != caller and not trusted:
            raise _not_owned("run it")
        if not model.digest:
            raise FailedPrecondition(
                reasons.ERROR_REASON_MODEL_NOT_FOUND,
                f"the catalogue does not know the digest of {model.name}; pull it once, and upload "
                "the file or name its digest",
                model=model.name,
            )
        return model

    async def list(self, after: Cursor | None, limit: int) -> tuple[list[Model], Cursor | None]:
        """A page of models: the catalogue's first, then uploads by name.

        Args:
            after: The cursor that came with the page before; None for the first page.
            limit: Models a page at most.

        Returns:
            The page, and the cursor of the next one, None on the last.
        """
        known = catalogue_models()
        begin, name, digest = after or (0, "", "")
        page = list(known[begin : begin + limit])
        begin += len(page)
        if begin < len(known):
            return page, (begin, "", "")
        room = limit - len(page)
        # One more tells whether there is a next page.
        found = await self._database.read(
            lambda tx: store.read_models(tx, (name, digest), room + 1)
        )
        page += found[:room]
        if len(found) <= room:
            return page, None
        last = found[room - 1] if room else None
        return page, (begin, last.name, last.digest) if last else (begin, "", "")

    # Uploading

    async def upload_offset(self, owner: str, digest: str) -> tuple[int, bool]:
        """How many bytes of an owner's upload are here, and whether the file is complete."""
        kept = find_in_catalogue(digest) or await self._uploaded(digest)
        if kept is not None:
            return kept.size_bytes, True
        size = await self._database.read(lambda tx: store.read_upload(tx, owner, digest))
        if size is None:
            return 0, False
        return await asyncio.to_thread(self._files.upload_offset, digest, size, owner=owner), False

    async def upload(
        self, owner: str, announced: Announcement, chunks: AsyncIterator[bytes]
    ) -> tuple[Model, bool]:
        """Take a file.

        Args:
            owner: Who sends it.
            announced: What it is.
            chunks: Its bytes, from the announced offset.

        Returns:
            The model as it is kept, and whether it was there already, so that no byte was read.

        Raises:
            ResourceExhausted: The owner's quota or the repository's does not suffice.
            Aborted: The offset is not where the stored part ends, or bytes are missing.
            InvalidRequest: There are more bytes than announced.
            FailedPrecondition: The bytes have another digest, or are no whole GGUF.
        """
        kept = find_in_catalogue(announced.digest) or await self._uploaded(announced.digest)
        if kept is not None:
            return kept, True
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
                "another call is sending this file; ask GetUpload when it has ended",
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
                    f"the file is no valid GGUF: {error}; upload a whole GGUF file",
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
            raise _Spoilt(InvalidRequest([Violation("header.size_bytes", str(error))])) from error
        except (OSError, StoreFull) as error:
            raise _no_room(error) from error
        return found[0]

    async def _keep(
        self, owner: str, announced: Announcement, header: GgufHeader
    ) -> tuple[Model, bool]:
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

        def work(connection: Connection) -> Model:
            kept = store.insert_model(connection, model)
            store.close_upload(connection, owner, announced.digest)
            return kept

        kept = await self._database.write(work)
        self._known[kept.digest] = kept
        return kept, kept.owner != owner

    # Downloading

    async def download(
        self, digest: str, offset: int, *, caller: str, trusted: bool
    ) -> tuple[int, AsyncIterator[bytes]]:
        """An uploaded file's size, and its bytes from an offset in chunks of 1 MiB.

        Args:
            digest: The model's digest.
            offset: Where to begin.
            caller: Who asks.
            trusted: Whether the caller may have everybody's models.

        Raises:
            NotFound: It is not in the repository.
            PermissionDenied: It was uploaded by somebody else.
            InvalidRequest: The offset lies behind the file's end.
        """
        model = await self._uploaded(digest)
        if model is None:
            raise NotFound(
                reasons.ERROR_REASON_MODEL_NOT_FOUND,
                f"digest: the repository has no upload {digest}; models of the catalogue are "
                "fetched from their source",
            )
        if model.owner != caller and not trusted:
            raise _not_owned("download it")
        if not 0 <= offset <= model.size_bytes:
            raise InvalidRequest(
                [Violation("offset", f"it is {offset}; give 0 to {model.size_bytes}")]
            )
        path = await asyncio.to_thread(self._files.path, digest)
        return model.size_bytes, _chunks(path, offset)

    # Keeping order

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

    async def _uploaded(self, digest: str) -> Model | None:
        model = self._known.get(digest)
        if model is None:
            model = await self._database.read(lambda tx: store.read_model(tx, digest))
            if model is not None:
                self._known[digest] = model
        return model


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


async def _chunks(path: Path, offset: int) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        await asyncio.to_thread(file.seek, offset)
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


def _not_owned(what: str) -> PermissionDenied:
    return PermissionDenied(
        reasons.ERROR_REASON_SUBJECT_NOT_OWNED,
        f"the model was uploaded by somebody else; only its owner may {what}",
    )


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

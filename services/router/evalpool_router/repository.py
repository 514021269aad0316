"""The models of the herd: the catalogue's, and those that people have uploaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

from evalpool.models import ModelStore
from evalpool.values import InvalidValue, Violation, parse_digest
from evalpool_router import store
from evalpool_router.catalogue import catalogue_models, find_in_catalogue
from evalpool_router.models import Model
from evalpool_runtime.database import Database
from evalpool_runtime.errors import (
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    reasons,
)

CHUNK_BYTES = 1024 * 1024
HERD_SOURCE = "herd:"

Cursor: TypeAlias = tuple[int, str, str]
"""How many of the catalogue's models have been listed; the last listed upload's name and digest."""


class Repository:
    """Finds models, and gives out the files of uploaded ones.

    Args:
        database: Where owners are kept.
        files: Where uploaded files are kept.
    """

    def __init__(self, database: Database, files: ModelStore) -> None:
        self._database = database
        self._files = files
        # Uploaded models never change, so what was read once stays right.
        self._known: dict[str, Model] = {}

    async def find(self, text: str, *, field: str, caller: str) -> Model:
        """The model with this digest or this name.

        Of models with one name the catalogue's goes first, then the caller's own, then the one that
        came first.

        Args:
            text: The model's digest or name.
            field: The request's field that names it.
            caller: Who asks.

        Raises:
            NotFound: There is none.
        """
        model = await self.find_digest(text)
        if model is None:
            model = await self._database.read(lambda tx: store.read_model_by_name(tx, text, caller))
        if model is None:
            raise NotFound(
                reasons.ERROR_REASON_MODEL_NOT_FOUND,
                f'{field}: the herd knows no model "{text[:80]}"; name one that ListModels lists, '
                "or upload it",
            )
        return model

    async def find_digest(self, digest: str) -> Model | None:
        """The model with this digest, of the catalogue or uploaded."""
        return find_in_catalogue(digest) or await self._uploaded(digest)

    async def named(self, text: str) -> Model:
        """The model that a setting names by digest or name, as far as the herd knows it."""
        found = await self.find_digest(text)
        if found is not None:
            return found
        try:
            return Model(parse_digest(text), "")
        except InvalidValue:
            return Model("", text)

    async def find_runnable(self, text: str, *, field: str, caller: str, trusted: bool) -> Model:
        """As `find`, for a model that the caller wants to run.

        Args:
            text: The model's digest or name.
            field: The request's field that names it.
            caller: Who wants to run it.
            trusted: Whether the caller may run everybody's models.

        Raises:
            NotFound: There is none.
            PermissionDenied: It was uploaded by somebody else.
            FailedPrecondition: It is in the catalogue without a digest.
        """
        model = await self.find(text, field=field, caller=caller)
        if model.owner and model.owner != caller and not trusted:
            raise _not_owned(field, "run it")
        if not model.digest:
            raise FailedPrecondition(
                reasons.ERROR_REASON_MODEL_NOT_FOUND,
                f"{field}: the catalogue does not know the digest of {model.name}; pull it once, "
                "and upload the file or name its digest",
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
                f"digest: the repository has no upload {digest}; upload it, or fetch a model of "
                "the catalogue from its source",
            )
        if model.owner != caller and not trusted:
            raise _not_owned("digest", "download it")
        if not 0 <= offset <= model.size_bytes:
            raise InvalidRequest(
                [Violation("offset", f"it is {offset}; give 0 to {model.size_bytes}")]
            )
        path = await asyncio.to_thread(self._files.path, digest)
        return model.size_bytes, _chunks(path, offset)

    async def _uploaded(self, digest: str) -> Model | None:
        model = self._known.get(digest)
        if model is None:
            model = await self._database.read(lambda tx: store.read_model(tx, digest))
            if model is not None:
                self._known[digest] = model
        return model


async def _chunks(path: Path, offset: int) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        await asyncio.to_thread(file.seek, offset)
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


def _not_owned(field: str, what: str) -> PermissionDenied:
    return PermissionDenied(
        reasons.ERROR_REASON_SUBJECT_NOT_OWNED,
        f"{field}: the model was uploaded by somebody else, and only its owner may {what}; name "
        "one of your own or of the catalogue",
    )

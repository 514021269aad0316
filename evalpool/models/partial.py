"""Files on their way into the store."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeAlias

from .disk import writing
from .errors import DigestMismatch, ModelInUse
from .locks import open_folder, try_exclusive

Check: TypeAlias = Callable[[Path], object]
"""Looks at a file whose digest is right, and raises what it has against it."""

_PART = re.compile(r"(?:fetch|upload|put)-[0-9a-f.]+\.(\d+)")


def sha256_of(path: Path) -> str:
    """Compute the SHA-256 of a file, as 64 lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class PartialFile:
    """A folder with a file that is being written, held by one writer.

    Everything that a fetch leaves beside the file lies in the folder too, and goes with it.

    Args:
        folder: The folder, made if it does not exist. The caller holds the store's lock.
        keep: Moves a finished file, with its verified digest, into the store.

    Raises:
        ModelInUse: Another writer holds it.
    """

    def __init__(self, folder: Path, keep: Callable[[Path, str], Path]) -> None:
        self.folder = folder
        self.content = folder / "content"
        self._keep = keep
        self._descriptor = _held_alone(folder)

    def keep(self, digest: str | None = None, check: Check | None = None) -> Path:
        """Verify the content, make it durable and move it into the store; gives its path there.

        Args:
            digest: The SHA-256 that it must have, if known.
            check: Called with the verified content; where it raises, nothing is kept.

        Raises:
            DigestMismatch: The content is another one; it is gone.
            StoreFull: There is no room for it; it is gone.
        """
        actual = sha256_of(self.content)
        if digest is not None and actual != digest:
            self.discard()
            raise DigestMismatch(digest, actual, "the content that came")
        return self.keep_verified(actual, check)

    def keep_verified(self, digest: str, check: Check | None = None) -> Path:
        """As `keep`, for a content whose digest the caller has computed."""
        try:
            if check is not None:
                check(self.content)
            with writing(self.folder), self.content.open("rb") as file:
                os.fsync(file.fileno())
            return self._keep(self.content, digest)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove everything that was written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Let others write; what is here stays for them, unless it is nothing."""
        if self._descriptor >= 0:
            if not _size(self.content):
                self.discard()
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class Parts:
    """The folder of all partial files.

    A part's folder is named `<purpose>-<key>.<announced size>`; the size is what it reserves.

    Args:
        folder: The folder, made if it does not exist.
        keep: Moves a finished file, with its verified digest, into the store.
    """

    def __init__(self, folder: Path, keep: Callable[[Path, str], Path]) -> None:
        self._folder = folder
        self._keep = keep
        folder.mkdir(parents=True, exist_ok=True)

    def hold(self, purpose: str, key: str, size: int | None) -> PartialFile:
        """Begin a part, or go on with one. The store's lock is held.

        Raises:
            ModelInUse: Another writer holds it.
        """
        return PartialFile(self._place(purpose, key, size), self._keep)

    def written(self, purpose: str, key: str, size: int | None) -> int:
        """How many bytes of a part are here."""
        return _size(self._place(purpose, key, size) / "content")

    def reserved(self) -> int:
        """The bytes that all parts take or will take."""
        return sum(
            max(announced, _size(folder / "content")) for folder, announced in self._announced()
        )

    def clean(self, before: float) -> None:
        """Remove what crashes left, and parts that nobody wrote to since `before`.

        Args:
            before: In seconds since the epoch.
        """
        for folder, _ in self._announced():
            # A writer that ends removes its folder without the store's lock.
            with suppress(FileNotFoundError):
                descriptor = open_folder(folder)
                try:
                    if try_exclusive(descriptor):
                        _clean(folder, before)
                finally:
                    os.close(descriptor)

    def _place(self, purpose: str, key: str, size: int | None) -> Path:
        return self._folder / f"{purpose}-{key}.{size or 0}"

    def _announced(self) -> list[tuple[Path, int]]:
        return [
            (folder, int(match[1]))
            for folder in self._folder.iterdir()
            if (match := _PART.fullmatch(folder.name))
        ]


def _held_alone(folder: Path) -> int:
    """Open a folder, made if it does not exist, and hold it."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            descriptor = open_folder(folder)
        except FileNotFoundError:
            continue  # a writer that ended has removed it just now
        if not try_exclusive(descriptor):
            os.close(descriptor)
            raise ModelInUse(
                f"{folder.name.partition('-')[2][:64]} is being written by another caller; "
                "try again when that has ended"
            )
        # What is held may be the folder of a writer that ended, and has no name any more.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
        os.close(descriptor)


def _clean(folder: Path, before: float) -> None:
    content = folder / "content"
    changed = (content if content.exists() else folder).stat().st_mtime
    if folder.name.startswith("put-") or not content.exists() or changed < before:
        shutil.rmtree(folder)
        return
    for leftover in folder.glob("content.wheel-*"):
        shutil.rmtree(leftover)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

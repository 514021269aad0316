"""Files on their way into the store."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from evalpool.values import parse_digest

from .errors import DigestMismatch, ModelInUse, SizeMismatch
from .locks import open_folder, try_exclusive

_CHUNK = 1024 * 1024


def sha256_of(path: Path) -> str:
    """Compute the SHA-256 of a file, as 64 lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _made_and_open(folder: Path) -> int:
    while True:
        folder.mkdir(exist_ok=True)
        # A writer that ends removes its folder, perhaps just now.
        with suppress(FileNotFoundError):
            return open_folder(folder)


class PartialFile:
    """A folder with a file that is being written, held by one writer.

    The folder's name is `<purpose>-<key>.<announced size>`; the size is what the store reserves.
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
        self._descriptor = _made_and_open(folder)
        if not try_exclusive(self._descriptor):
            os.close(self._descriptor)
            raise ModelInUse(
                f"{folder.name.partition('-')[2][:64]} is being written by another caller; "
                "try again when that has ended"
            )

    def keep(self, digest: str | None = None) -> Path:
        """Verify the content, make it durable and move it into the store; gives its path there.

        Raises:
            DigestMismatch: The content is another one; it is gone.
            StoreFull: There is no room for it; it is gone.
        """
        actual = sha256_of(self.content)
        if digest is not None and actual != digest:
            self.discard()
            raise DigestMismatch(digest, actual, "the content that came")
        return self.keep_verified(actual)

    def keep_verified(self, digest: str) -> Path:
        """As `keep`, for a content whose digest the caller has computed."""
        try:
            with self.content.open("rb") as file:
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
            if not (self.content.exists() and self.content.stat().st_size):
                self.discard()
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class Upload:
    """Content that comes in pieces, and may go on where it stopped, today or tomorrow.

    Use it as a context manager. Leaving it without `commit` keeps the part for a continuation.
    Not for two threads at once.

    Attributes:
        digest: The SHA-256 that the content must have.
        size: The number of bytes that it must have.
        offset: How many of them are here: the position from which to send.
    """

    def __init__(self, partial: PartialFile, digest: str, size: int) -> None:
        self.digest = parse_digest(digest)
        self.size = size
        self._partial = partial
        self._hash = hashlib.sha256()
        self._file = partial.content.open("a+b", buffering=0)
        self._file.seek(0)
        self.offset = 0
        while chunk := self._file.read(_CHUNK):
            self._hash.update(chunk)
            self.offset += len(chunk)

    def write(self, chunk: bytes) -> None:
        """Append a chunk.

        Raises:
            SizeMismatch: There is more than was announced; nothing is kept.
        """
        if self.offset + len(chunk) > self.size:
            self._file.close()
            self._partial.discard()
            raise SizeMismatch(
                f"more than the announced {self.size} bytes came; nothing was kept, "
                "announce the right size"
            )
        view = memoryview(chunk)
        while view:
            written = self._file.write(view)
            view = view[written:]
        self._hash.update(chunk)
        self.offset += len(chunk)

    def commit(self, check: Callable[[Path], object] | None = None) -> Path:
        """Verify size and digest and put the content into the store; gives its path there.

        Args:
            check: Called with the verified file before it is kept; where it raises, nothing is.

        Raises:
            SizeMismatch: Bytes are missing; the part is kept.
            DigestMismatch: The content is another one; nothing is kept.
            StoreFull: There is no room; nothing is kept.
        """
        if self.offset != self.size:
            raise SizeMismatch(
                f"{self.offset} of the announced {self.size} bytes came; send the rest"
            )
        self._file.close()
        actual = self._hash.hexdigest()
        if actual != self.digest:
            self._partial.discard()
            raise DigestMismatch(self.digest, actual, "the content that came")
        if check is not None:
            try:
                check(self._partial.content)
            except BaseException:
                self._partial.discard()
                raise
        return self._partial.keep_verified(actual)

    def discard(self) -> None:
        """Give up, and keep nothing."""
        self._file.close()
        self._partial.discard()

    def close(self) -> None:
        """Stop for now; the part is kept."""
        self._file.close()
        self._partial.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

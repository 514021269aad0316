"""Content that comes in pieces, from somebody who may be cut off."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

from evalpool.values import parse_digest

from .disk import writing
from .errors import DigestMismatch, SizeMismatch
from .partial import Check, PartialFile

_CHUNK = 1024 * 1024


class Upload:
    """Content on its way, which may go on where it stopped, today or tomorrow.

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
        self.offset = 0
        partial.content.touch()
        with partial.content.open("rb") as file:
            while chunk := file.read(_CHUNK):
                self._hash.update(chunk)
                self.offset += len(chunk)
        self._file = partial.content.open("ab", buffering=0)

    def write(self, chunk: bytes) -> None:
        """Append a chunk.

        Raises:
            SizeMismatch: There is more than was announced; nothing is kept.
            StoreFull: The disk is full; what was written before is kept.
        """
        if self.offset + len(chunk) > self.size:
            self._file.close()
            self._partial.discard()
            raise SizeMismatch(f"more than the announced {self.size} bytes came; nothing was kept")
        view = memoryview(chunk)
        with writing(self._partial.folder):
            while view:
                written = self._file.write(view)
                self._hash.update(view[:written])
                self.offset += written
                view = view[written:]

    def commit(self, check: Check | None = None) -> Path:
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
        return self._partial.keep_verified(actual, check)

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

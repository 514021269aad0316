"""Reading forward through a file that may lie about itself."""

from __future__ import annotations

import struct
from typing import IO, Final, NoReturn

from evalpool.models.errors import InvalidGguf

MAX_HEADER_BYTES = 268_435_456
MAX_TEXT_BYTES = 1_048_576
"""Bytes of one text, such as a chat template."""

_BUFFER = 262_144
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")


class Cursor:
    """Reads forward through a file, and never past its end or the header's bound."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self.size = size
        self._buffer = b""
        self._start = 0
        self.position = 0

    def take(self, length: int, field: str) -> bytes:
        """Give the next bytes; the caller has bounded the length."""
        at = self.position - self._start
        if at < 0 or at + length > len(self._buffer):
            self._fill(length, field)
            at = 0
        self.position += length
        return self._buffer[at : at + length]

    def skip(self, length: int, field: str) -> None:
        """Pass over bytes without reading them."""
        self._check(length, field)
        self.position += length

    def u32(self, field: str) -> int:
        """Read an unsigned number of 4 bytes."""
        return int(_U32.unpack(self.take(4, field))[0])

    def u64(self, field: str) -> int:
        """Read an unsigned number of 8 bytes."""
        return int(_U64.unpack(self.take(8, field))[0])

    def count(self, field: str, most: int, least_bytes_each: int) -> int:
        """Read a number of things that follow and take at least so many bytes each."""
        at = self.position
        count = self.u64(field)
        if count > most:
            raise InvalidGguf(field, at, f"it is {count}; at most {most} are accepted")
        if count * least_bytes_each > self.size - self.position:
            raise InvalidGguf(field, at, f"it is {count}, more than the rest of the file can hold")
        return count

    def text(self, field: str, most: int) -> str:
        """Read a length and so many bytes of UTF-8."""
        length = self.length(field, most)
        at = self.position
        raw = self.take(length, field)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise InvalidGguf(field, at, "it is not valid UTF-8") from error

    def skip_texts(self, count: int, field: str) -> None:
        """Pass over texts of an array, following their lengths."""
        for _ in range(count):
            # The same as take, inlined: vocabularies have some hundred thousand of them.
            at = self.position - self._start
            if at < 0 or at + 8 > len(self._buffer):
                self._fill(8, field)
                at = 0
            (length,) = _U64.unpack_from(self._buffer, at)
            if length > MAX_TEXT_BYTES:
                self._too_long(field, length, MAX_TEXT_BYTES)
            self.position += 8 + length
        self._check(0, field)

    def length(self, field: str, most: int) -> int:
        """Read how many bytes follow."""
        at = self.position
        length = self.u64(field)
        if length > most:
            self._too_long(field, length, most, at)
        return length

    def _too_long(self, field: str, length: int, most: int, at: int | None = None) -> NoReturn:
        raise InvalidGguf(
            field,
            self.position if at is None else at,
            f"its length is {length}; at most {most} bytes are accepted",
        )

    def _fill(self, length: int, field: str) -> None:
        self._check(length, field)
        self._file.seek(self.position)
        self._buffer = self._file.read(max(length, _BUFFER))
        self._start = self.position
        if len(self._buffer) < length:
            raise InvalidGguf(field, self.position, "the file ends here; it is truncated")

    def _check(self, length: int, field: str) -> None:
        if self.position + length > self.size:
            raise InvalidGguf(
                field, min(self.position, self.size), "the file ends here; it is truncated"
            )
        if self.position + length > MAX_HEADER_BYTES:
            raise InvalidGguf(
                field, self.position, f"the header is longer than {MAX_HEADER_BYTES} bytes"
            )

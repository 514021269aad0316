"""A GGUF file's metadata: values by key."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from evalpool.models.errors import InvalidGguf

from .cursor import MAX_HEADER_BYTES, MAX_TEXT_BYTES, Cursor

MAX_ENTRIES = 16_384
"""Metadata entries at most; models have some tens."""
MAX_KEY_BYTES = 1_024
MAX_TEXTS = 4_194_304
"""Texts in all arrays together; vocabularies have up to some hundred thousand."""
DEFAULT_ALIGNMENT = 32

_TEXT = 8
_ARRAY = 9
# The value types of fixed size: `struct` letters by GGUF's numbers.
_SCALARS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<B"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_UINT32 = 4
_INTEGERS = frozenset({0, 1, 2, 3, 4, 5, 10, 11})


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a metadata value stands; for texts and arrays, only that."""

    kind: int
    offset: int
    number: int | float | None


class Metadata:
    """The metadata's keys and numbers; texts are read when they are asked for."""

    def __init__(self, cursor: Cursor, count: int) -> None:
        self._cursor = cursor
        self._entries: dict[str, Entry] = {}
        texts_left = MAX_TEXTS
        for index in range(count):
            at = cursor.position
            key = cursor.text(f"metadata[{index}].key", MAX_KEY_BYTES)
            if not key or not key.isprintable():
                raise InvalidGguf(f"metadata[{index}].key", at, "it is empty or not printable")
            if key in self._entries:
                raise InvalidGguf(key, at, "the key comes twice")
            kind = cursor.u32(f"{key} (type)")
            offset = cursor.position
            number = None
            if kind in _SCALARS:
                scalar = _SCALARS[kind]
                (number,) = scalar.unpack(cursor.take(scalar.size, key))
            elif kind == _TEXT:
                cursor.skip(cursor.length(key, MAX_TEXT_BYTES), key)
            elif kind == _ARRAY:
                texts_left -= self._skip_array(key, texts_left)
            else:
                raise InvalidGguf(key, offset - 4, f"the value type {kind} is not known")
            self._entries[key] = Entry(kind, offset, number)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def offset(self, key: str) -> int:
        """Where a value stands in the file."""
        return self._entries[key].offset

    def text(self, key: str) -> str | None:
        """A text, None where there is none of this key."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.kind != _TEXT:
            raise InvalidGguf(key, entry.offset, "it should be a text")
        here = self._cursor.position
        self._cursor.position = entry.offset
        try:
            return self._cursor.text(key, MAX_TEXT_BYTES)
        finally:
            self._cursor.position = here

    def integer(self, key: str) -> int | None:
        """A whole number from 0, None where there is none of this key."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.kind not in _INTEGERS or not isinstance(entry.number, int) or entry.number < 0:
            raise InvalidGguf(key, entry.offset, "it should be a whole number, not negative")
        return entry.number

    def alignment(self) -> int:
        """Bytes that the tensors' data is aligned to."""
        alignment = self.integer("general.alignment")
        if alignment is None:
            return DEFAULT_ALIGNMENT
        entry = self._entries["general.alignment"]
        if entry.kind != _UINT32 or alignment == 0 or alignment & (alignment - 1):
            raise InvalidGguf(
                "general.alignment", entry.offset, "it should be a power of two of type UINT32"
            )
        return alignment

    def _skip_array(self, key: str, texts_left: int) -> int:
        """Pass over an array; gives how many texts it has."""
        at = self._cursor.position
        kind = self._cursor.u32(f"{key} (element type)")
        if kind in _SCALARS:
            width = _SCALARS[kind].size
            count = self._cursor.count(f"{key} (length)", MAX_HEADER_BYTES // width, width)
            self._cursor.skip(count * width, key)
            return 0
        if kind == _TEXT:
            count = self._cursor.count(f"{key} (length)", texts_left, 8)
            self._cursor.skip_texts(count, key)
            return count
        raise InvalidGguf(key, at, f"arrays of the type {kind} are not supported")

"""Read the header of a GGUF file: what model it holds, and whether it is whole.

The format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version, the numbers
of tensors and of metadata entries; the metadata; a description of each tensor; padding; the data.
Files come from strangers, so every count and length is bounded before it is used, and memory and
time are bounded by the constants here whatever the file says. What passes can still be refused by
llama.cpp, which alone knows what each architecture needs.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, NoReturn

from .errors import InvalidGguf
from .ggml_types import FILE_TYPES, TENSOR_TYPES

MAX_ENTRIES = 16_384
"""Metadata entries at most; models have some tens."""
MAX_TENSORS = 131_072
"""Tensors at most; the largest models have some thousands."""
MAX_KEY_BYTES = 1_024
MAX_TEXT_BYTES = 1_048_576
"""Bytes of one text in the metadata, such as a chat template."""
MAX_TEXTS = 4_194_304
"""Texts in all arrays together; vocabularies have up to some hundred thousand."""
MAX_SHOWN = 256
"""Characters of a name or licence that are given on; the rest is cut off."""
MAX_HEADER_BYTES = 268_435_456
MAX_DIMENSIONS = 4
MAX_TENSOR_NAME_BYTES = 63
DEFAULT_ALIGNMENT = 32

_BUFFER = 262_144
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
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
class GgufHeader:
    """What a GGUF file says about its model.

    Attributes:
        version: The format's version, 2 or 3.
        architecture: llama.cpp's name of the architecture, such as "llama".
        name: The model's name, if it gives one.
        context_length: The tokens that it was trained to attend to, if it says.
        quantisation: The file type, such as "Q4_K_M"; where the file names none that is known,
            the type that most of its weights have.
        parameters: The number of weights.
        tensors: The number of tensors.
        has_chat_template: Whether it brings a chat template.
        license: The licence's name, if it gives one.
        size_bytes: The file's size.
    """

    version: int
    architecture: str
    name: str | None
    context_length: int | None
    quantisation: str
    parameters: int
    tensors: int
    has_chat_template: bool
    license: str | None
    size_bytes: int


def read_gguf(path: Path) -> GgufHeader:
    """Read and check a file's header.

    Raises:
        InvalidGguf: The file is no GGUF model, or damaged, or one of several that belong together.
        OSError: The file can't be read.
    """
    with path.open("rb") as file:
        return read_gguf_stream(file, os.fstat(file.fileno()).st_size)


def read_gguf_stream(file: IO[bytes], size_bytes: int) -> GgufHeader:
    """As `read_gguf`, from an open, seekable file of a known size."""
    cursor = _Cursor(file, size_bytes)
    if cursor.take(4, "magic") != b"GGUF":
        raise InvalidGguf("magic", 0, "the file is no GGUF; it does not begin with GGUF")
    version = cursor.u32("version")
    if version not in (2, 3):
        raise InvalidGguf(
            "version", 4, f"version {version} is not supported; convert the model to version 3"
        )
    tensor_count = cursor.count("tensor_count", MAX_TENSORS, least_bytes_each=24)
    entry_count = cursor.count("metadata_kv_count", MAX_ENTRIES, least_bytes_each=14)
    metadata = _Metadata(cursor, entry_count)
    architecture = metadata.text("general.architecture")
    if not architecture or len(architecture) > MAX_SHOWN:
        raise InvalidGguf(
            "general.architecture", cursor.position, "the metadata names no architecture"
        )
    parts = metadata.integer("split.count")
    if parts is not None and parts > 1:
        raise InvalidGguf(
            "split.count",
            metadata.offset("split.count"),
            f"this is one of {parts} files of a model; join them with llama-gguf-split first",
        )
    alignment = metadata.alignment()
    parameters, by_type = _check_tensors(cursor, tensor_count, alignment)
    file_type = metadata.integer("general.file_type")
    return GgufHeader(
        version=version,
        architecture=architecture,
        name=_shown(metadata.text("general.name")),
        context_length=metadata.integer(f"{architecture}.context_length"),
        quantisation=FILE_TYPES.get(-1 if file_type is None else file_type & ~1024)
        or TENSOR_TYPES[max(by_type, key=lambda kind: (by_type[kind], -kind))].name,
        parameters=parameters,
        tensors=tensor_count,
        has_chat_template="tokenizer.chat_template" in metadata,
        license=_shown(metadata.text("general.license")),
        size_bytes=size_bytes,
    )


class _Cursor:
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
        return int(_U32.unpack(self.take(4, field))[0])

    def u64(self, field: str) -> int:
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


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a metadata value stands; for texts and arrays, only that."""

    kind: int
    offset: int
    number: int | float | None


class _Metadata:
    """The metadata's keys and numbers; texts are read when they are asked for."""

    def __init__(self, cursor: _Cursor, count: int) -> None:
        self._cursor = cursor
        self._entries: dict[str, _Entry] = {}
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
            self._entries[key] = _Entry(kind, offset, number)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def offset(self, key: str) -> int:
        return self._entries[key].offset

    def text(self, key: str) -> str | None:
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
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.kind not in _INTEGERS or not isinstance(entry.number, int) or entry.number < 0:
            raise InvalidGguf(key, entry.offset, "it should be a whole number, not negative")
        return entry.number

    def alignment(self) -> int:
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


def _check_tensors(cursor: _Cursor, count: int, alignment: int) -> tuple[int, Counter[int]]:
    """Check the tensors' descriptions, and that the file holds their data.

    Returns:
        The number of weights, and how many of them each tensor type has.
    """
    names: set[str] = set()
    by_type: Counter[int] = Counter()
    end_of_data = 0
    last_end = 0
    for index in range(count):
        field = f"tensors[{index}]"
        at = cursor.position
        name = cursor.text(f"{field}.name", MAX_TENSOR_NAME_BYTES)
        if name in names:
            raise InvalidGguf(f"{field}.name", at, "two tensors have the same name")
        names.add(name)
        at = cursor.position
        dimensions = cursor.u32(f"{field}.n_dimensions")
        if dimensions > MAX_DIMENSIONS:
            raise InvalidGguf(
                f"{field}.n_dimensions", at, f"it is {dimensions}; at most {MAX_DIMENSIONS} are"
            )
        weights, first = 1, 1
        for axis in range(dimensions):
            at = cursor.position
            extent = cursor.u64(f"{field}.dimensions[{axis}]")
            weights *= extent
            if not 0 < extent < 2**63 or weights >= 2**63:
                raise InvalidGguf(
                    f"{field}.dimensions[{axis}]", at, f"the extent {extent} is impossible"
                )
            first = extent if axis == 0 else first
        at = cursor.position
        number = cursor.u32(f"{field}.type")
        kind = TENSOR_TYPES.get(number)
        if kind is None:
            raise InvalidGguf(f"{field}.type", at, f"the tensor type {number} is not known")
        if first % kind.block:
            raise InvalidGguf(
                f"{field}.type", at, f"rows of {first} do not divide into {kind.name}'s blocks"
            )
        at = cursor.position
        offset = cursor.u64(f"{field}.offset")
        # As llama.cpp: tensors follow one another without gaps but the alignment's.
        if offset != end_of_data:
            raise InvalidGguf(
                f"{field}.offset", at, f"it is {offset}; the tensor should begin at {end_of_data}"
            )
        last_end = offset + weights // kind.block * kind.bytes
        end_of_data = _aligned(last_end, alignment)
        by_type[number] += weights
    if not count:
        raise InvalidGguf("tensor_count", 8, "the file holds no tensors; it is a vocabulary only")
    data = _aligned(cursor.position, alignment)
    if data + last_end > cursor.size:
        raise InvalidGguf(
            "tensor data",
            cursor.size,
            f"the file ends here, and its tensors need {data + last_end} bytes; it is truncated",
        )
    return sum(by_type.values()), by_type


def _shown(text: str | None) -> str | None:
    return text if text is None else text[:MAX_SHOWN]


def _aligned(position: int, alignment: int) -> int:
    return (position + alignment - 1) // alignment * alignment

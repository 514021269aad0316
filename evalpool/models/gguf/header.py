"""What a GGUF file says about its model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from evalpool.models.errors import InvalidGguf
from evalpool.models.ggml_types import FILE_TYPES, TENSOR_TYPES

from .cursor import Cursor
from .metadata import MAX_ENTRIES, Metadata
from .tensors import MAX_TENSORS, check_tensors

MAX_SHOWN = 256
"""Characters of a name or licence that are given on; the rest is cut off."""
MAX_CONTEXT_LENGTH = 2**31 - 1
"""Tokens at most, as the contract carries them; models are trained on some millions."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says about its model.

    Attributes:
        version: The format's version, 2 or 3.
        architecture: llama.cpp's name of the architecture, such as "llama".
        name: The model's name, if it gives one; what cannot be printed is replaced by U+FFFD.
        context_length: The tokens that it was trained to attend to, if it says.
        quantisation: The file type, such as "Q4_K_M"; where the file names none that is known,
            the type that most of its weights have.
        parameters: The number of weights.
        tensors: The number of tensors.
        has_chat_template: Whether it brings a chat template.
        license: The licence's name, if it gives one, in the same way.
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
    cursor = Cursor(file, size_bytes)
    if cursor.take(4, "magic") != b"GGUF":
        raise InvalidGguf("magic", 0, "the file is no GGUF; it does not begin with GGUF")
    version = cursor.u32("version")
    if version not in (2, 3):
        raise InvalidGguf(
            "version", 4, f"version {version} is not supported; convert the model to version 3"
        )
    tensor_count = cursor.count("tensor_count", MAX_TENSORS, least_bytes_each=24)
    entry_count = cursor.count("metadata_kv_count", MAX_ENTRIES, least_bytes_each=14)
    metadata = Metadata(cursor, entry_count)
    architecture = metadata.text("general.architecture")
    if not architecture or len(architecture) > MAX_SHOWN or not architecture.isprintable():
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
    parameters, by_type = check_tensors(cursor, tensor_count, alignment)
    file_type = metadata.integer("general.file_type")
    return GgufHeader(
        version=version,
        architecture=architecture,
        name=_shown(metadata.text("general.name")),
        context_length=_context_length(metadata, f"{architecture}.context_length"),
        quantisation=FILE_TYPES.get(-1 if file_type is None else file_type & ~1024)
        or TENSOR_TYPES[max(by_type, key=lambda kind: (by_type[kind], -kind))].name,
        parameters=parameters,
        tensors=tensor_count,
        has_chat_template="tokenizer.chat_template" in metadata,
        license=_shown(metadata.text("general.license")),
        size_bytes=size_bytes,
    )


def _context_length(metadata: Metadata, key: str) -> int | None:
    length = metadata.integer(key)
    if length is not None and length > MAX_CONTEXT_LENGTH:
        raise InvalidGguf(
            key, metadata.offset(key), f"it is {length}; at most {MAX_CONTEXT_LENGTH} is possible"
        )
    return length


def _shown(text: str | None) -> str | None:
    """A text as it may be stored and printed: no NUL, nothing that drives a terminal."""
    if text is None:
        return None
    return "".join(each if each.isprintable() else "\ufffd" for each in text[:MAX_SHOWN])

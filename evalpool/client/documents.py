"""Sets of documents: read a file of them, make a set and follow it until it can be searched."""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from evalpool.client.connection import Client
from evalpool.client.watching import resumed
from evalpool.embedding.v1 import embedding_pb2

MESSAGE_DOCUMENTS = 200
MESSAGE_BYTES = 2 * 1024 * 1024
"""Of one message of UploadDataset, which may have 3 MiB."""

LINE_BYTES = 1024 * 1024
"""A line of a file: twice what the largest document takes with every character escaped."""


def read_documents(path: Path) -> list[embedding_pb2.Document]:
    """Read JSON Lines, or one JSON array, of {"content": …, "meta": {…}}.

    Raises:
        ValueError: A line is none; it is named by its number.
        OSError: The file cannot be read.
    """
    return [_document(value, where) for value, where in _values(path)]


async def make_set(
    client: Client, name: str, documents: Sequence[embedding_pb2.Document]
) -> AsyncIterator[embedding_pb2.DocumentSet]:
    """Make a set of documents, and follow it until it is ready or failed.

    A service that ends meanwhile is sent the same again: what it had taken in is no change, and the
    embedding goes on where it was.

    Args:
        client: Who will own it.
        name: The owner's name for it.
        documents: What is in it.

    Yields:
        The set as it then is: while it is sent without a digest, then as it is embedded.

    Raises:
        grpc.aio.AioRpcError: The service refused it, or is out of reach for a minute.
    """
    stream = resumed(
        lambda _cursor: aiter(client.embedding.UploadDataset(_messages(name, documents))),
        lambda _response: 0,
    )
    async for response in stream:
        yield response.dataset


def _values(path: Path) -> Iterator[tuple[Any, str]]:
    """Each document's JSON value, and where it stands."""
    is_first = True
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(LINE_BYTES + 1)
            if not line:
                return
            if number == 1:  # what an editor may put at the beginning is no part of it
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            if is_first and line.lstrip().startswith(b"["):
                values = _loads(line + file.read(), path.name)
                yield from ((each, f"document {n}") for n, each in enumerate(values, 1))
                return
            if len(line) > LINE_BYTES:
                raise ValueError(
                    f"line {number}: it is longer than {LINE_BYTES:,} bytes; a document's content "
                    "has at most 65,536, so divide it into several documents"
                )
            yield _loads(line, f"line {number}"), f"line {number}"
            is_first = False


def _loads(raw: bytes, where: str) -> Any:
    try:
        return json.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: it is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: it is no JSON: {error}") from error


def _document(value: Any, where: str) -> embedding_pb2.Document:
    if not isinstance(value, dict):
        raise ValueError(f'{where}: it is no object; give {{"content": …, "meta": {{…}}}}')
    content, meta = value.get("content"), value.get("meta")
    unknown = sorted(str(name)[:40] for name in value.keys() - {"content", "meta"})
    if unknown:
        raise ValueError(f"{where}: it has {', '.join(unknown)}; give content and meta alone")
    if not isinstance(content, str):
        raise ValueError(f"{where}: content is no text; give one in double quotes")
    if not isinstance(meta, dict | None):
        raise ValueError(f'{where}: meta is no object; give one, such as {{"title": "two"}}')
    try:
        document = embedding_pb2.Document(content=content)
        document.meta.update(meta or {})
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: it cannot be sent ({error}); give texts and numbers") from error
    if document.ByteSize() > LINE_BYTES:
        raise ValueError(
            f"{where}: it has {document.ByteSize():,} bytes; a document's content has at most "
            "65,536, so divide it into several documents"
        )
    return document


async def _messages(
    name: str, documents: Sequence[embedding_pb2.Document]
) -> AsyncIterator[embedding_pb2.UploadDatasetRequest]:
    message, size, is_first = embedding_pb2.UploadDatasetRequest(hash=name), 0, True
    for document in documents:
        more = document.ByteSize() + 8
        if len(message.list) == MESSAGE_DOCUMENTS or (message.list and size + more > MESSAGE_BYTES):
            yield message
            message, size, is_first = embedding_pb2.UploadDatasetRequest(), 0, False
        message.list.append(document)
        size += more
    if message.list or is_first:
        yield message

"""Sets of documents: files as people write them, and a set that is followed over a restart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalpool.client import Client
from evalpool.client.documents import LINE_BYTES, make_set, read_documents
from evalpool.embedding.v1 import embedding_pb2
from evalpool.endpoints import Endpoints
from evalpool.identity import Identity
from evalpool.models import ModelStore, ensure, find_model
from evalpool.wallet import AddressBook
from tests.served import Served

ONE = b'{"content": "one", "meta": {"page": 1, "kept": true}}'
OTHER = b'{"content": "other"}'


def read(tmp_path: Path, content: bytes) -> list[embedding_pb2.Document]:
    path = tmp_path / "documents"
    path.write_bytes(content)
    return read_documents(path)


@pytest.mark.parametrize(
    "content",
    [
        ONE + b"\n" + OTHER,
        ONE + b"\n" + OTHER + b"\n",
        b"\n" + ONE + b"\r\n  \n" + OTHER + b"\r\n\n",
        b"\xef\xbb\xbf" + ONE + b"\n" + OTHER,
        b"[" + ONE + b"," + OTHER + b"]",
        b"\xef\xbb\xbf\n [\n" + ONE + b",\n" + OTHER + b"\n]\n",
    ],
    ids=["no end", "lines", "empty lines", "mark", "array", "array over lines"],
)
def test_lines_and_arrays_are_read_alike(tmp_path: Path, content: bytes) -> None:
    one, other = read(tmp_path, content)

    assert (one.content, dict(one.meta)) == ("one", {"page": 1.0, "kept": True})
    assert (other.content, dict(other.meta)) == ("other", {})


def test_a_file_without_anything_has_no_documents(tmp_path: Path) -> None:
    assert read(tmp_path, b"") == read(tmp_path, b"\n\n") == read(tmp_path, b"[]") == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (ONE + b"\nno json", "line 2: it is no JSON"),
        (ONE + b'\n\n{"content": "x"', "line 3: it is no JSON"),
        (ONE + b'\n"text"', "line 2: it is no object"),
        (b'[{"content": "x"}, 7]', "document 2: it is no object"),
        (b'[{"content": "x"}', "documents: it is no JSON"),
        (ONE + b'\n{"content": "\xff\xfe"}', "line 2: it is not UTF-8 .*; save it as UTF-8"),
        (b'[{"content": "\xff"}]', "documents: it is not UTF-8"),
        (b'{"content": 7}', "line 1: content is no text; "),
        (b'{"meta": {}}', "line 1: content is no text; "),
        (b'{"content": "x", "meta": "title"}', "line 1: meta is no object; "),
        (b'{"content": "x", "meta": "{\\"title\\": 1}"}', "line 1: meta is no object; "),
        (b'{"content": "x", "meta": [1]}', "line 1: meta is no object; "),
        (b'{"content": "x", "meta": ""}', "line 1: meta is no object; "),
        (b'{"content": "x", "text": "y"}', "line 1: it has text; "),
        (b'{"content": "\\ud800"}', "line 1: it cannot be sent"),
        (b'{"content": "x", "meta": {"a": "\\ud800"}}', "line 1: it cannot be sent"),
        (b"{" * 100_000, "line 1: it is no JSON"),
        (b'{"content": "x", "meta": {"a": ' + b"[" * 5_000, "line 1: it is no JSON"),
    ],
)
def test_what_is_no_document_is_named_by_its_line(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    with pytest.raises(ValueError, match=f"(?s)^{problem}"):
        read(tmp_path, content)


def test_a_line_of_50_mb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    huge = b'{"content": "' + b"x" * 50_000_000 + b'"}'

    with pytest.raises(ValueError, match=r"^line 2: it is longer than 1,048,576 bytes; .*divide"):
        read(tmp_path, ONE + b"\n" + huge)
    with pytest.raises(ValueError, match=r"^document 1: it has 50,000,00\d bytes; .*divide"):
        read(tmp_path, b"[" + huge + b"]")


def test_the_largest_document_with_every_character_escaped_is_read(tmp_path: Path) -> None:
    content = "\u0001" * 65_536
    line = json.dumps({"content": content}).encode()
    assert len(line) < LINE_BYTES

    (document,) = read(tmp_path, line)

    assert document.content == content


async def test_a_set_is_followed_over_the_end_and_the_start_of_its_service(
    tmp_path: Path, model_store: ModelStore
) -> None:
    for name in ("all-MiniLM-L6-v2-int8", "all-MiniLM-L6-v2-tokenizer"):
        ensure(model_store, find_model(name))
    flags = ("--models-dir", str(model_store.root))
    words = "many words make a text that takes its time " * 8
    documents = [embedding_pb2.Document(content=f"{words} {n}") for n in range(600)]
    # As large as they may be: several messages, none too large.
    documents += [embedding_pb2.Document(content=f"{n}".rjust(65_536)) for n in range(60)]
    served = Served("embedding", tmp_path / "data")
    killed_at: list[int] = []
    try:
        await served.start(*flags)
        endpoints = Endpoints(embedding=served.endpoint)
        book = AddressBook(tmp_path / "home")
        async with Client(Identity.generate(), endpoints=endpoints, addresses=book) as client:
            async for last in make_set(client, "large", documents):
                if last.embedded_count and not killed_at:
                    killed_at.append(last.embedded_count)
                    await served.kill()
                    await served.start(*flags)
    finally:
        await served.kill()

    assert 0 < killed_at[0] < 660
    assert last.state == embedding_pb2.DOCUMENT_SET_STATE_READY
    assert last.embedded_count == last.document_count == 660

"""Documents: what one may hold, and the digest that a list of them has.

The digest is a SHA-256 over one line of canonical JSON a document, in the list's order::

    {"content":"A random doc","meta":{"title":"four"}}

Keys are sorted by code point, nothing is escaped that JSON does not ask to be, there are no spaces,
the encoding is UTF-8 and every line ends with a line feed. A whole number is written without point
and exponent, any other as Python's `repr` writes it: shortest, and read back exactly.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from evalpool.values import Fields, InvalidFields, InvalidValue, parse_request_id

MetaValue: TypeAlias = str | float | bool
"""What a value of a document's meta may be; every number is a float, as the contract carries it."""

Meta: TypeAlias = Mapping[str, MetaValue]
"""What is known of a document, by name."""

MAX_CONTENT_BYTES = 64 * 1024
MAX_META_BYTES = 16 * 1024
MAX_META_KEYS = 64
MAX_KEY_CHARACTERS = 128
MAX_LIST = 1000
MAX_VIOLATIONS = 50
MAX_TOP_K = 100
DEFAULT_TOP_K = 4


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a set.

    Attributes:
        content: The text, 1 byte to 64 KiB.
        meta: What is known of it.
    """

    content: str
    meta: Meta


def parse_alias(text: str) -> str:
    """Parse the owner's name for a set: 1 to 128 characters of `[A-Za-z0-9._:-]`.

    Raises:
        InvalidValue: The text is anything else.
    """
    try:
        return parse_request_id(text)
    except InvalidValue as error:
        raise InvalidValue(
            f"{text[:60]!r} is no name of a document set; give 1 to 128 letters, digits and ._:-"
        ) from error


def parse_content(text: str) -> str:
    """Parse a document's text, a prompt or a text to embed: 1 byte to 64 KiB, without NUL.

    Raises:
        InvalidValue: It is empty or too long, or has a NUL character.
    """
    size = len(text.encode())
    if size == 0:
        raise InvalidValue("it is empty; give at least 1 byte of text")
    if size > MAX_CONTENT_BYTES:
        raise InvalidValue(
            f"it has {size} bytes; give at most {MAX_CONTENT_BYTES}, in several documents if "
            "need be"
        )
    if "\0" in text:
        raise InvalidValue("it has a NUL character; remove it")
    return text


def parse_meta(values: Mapping[str, object]) -> dict[str, MetaValue]:
    """Parse a document's meta, or a filter: strings, finite numbers and booleans by name.

    Raises:
        InvalidFields: With the names whose values are anything else, such as null, a list or an
            object.
        InvalidValue: There are more than 64 values or 16 KiB of them.
    """
    if len(values) > MAX_META_KEYS:
        raise InvalidValue(f"it has {len(values)} values; give at most {MAX_META_KEYS}")
    fields = Fields()
    meta = {
        name: fields.attempt(name[:MAX_KEY_CHARACTERS], partial(_meta_value, name, value))
        for name, value in values.items()
    }
    fields.check()
    size = len(_canonical(meta).encode())
    if size > MAX_META_BYTES:
        raise InvalidValue(f"it has {size} bytes as JSON; give at most {MAX_META_BYTES}")
    return meta


def parse_documents(
    fields: Fields, pairs: Sequence[tuple[str, Mapping[str, object]]], *, first: int = 0
) -> list[Document]:
    """Parse a request's list of documents; they must not be used before `fields.check()`.

    Args:
        fields: Remembers every violation, as in "list[3].meta.title".
        pairs: Each document's content and meta, 1 to 1,000.
        first: The first one's place in its set, for what the violations say.
    """
    if not 1 <= len(pairs) <= MAX_LIST:
        fields.refuse(
            "list",
            f"it has {len(pairs)} documents; give 1 to {MAX_LIST}, and more in further messages of "
            "UploadDataset",
        )
        return []
    documents: list[Document] = []
    violations = 0
    for place, (content, values) in enumerate(pairs, first):
        row = Fields()
        text = row.parse("content", parse_content, content)
        meta = row.attempt("meta", partial(parse_meta, values))
        try:
            row.check()
        except InvalidFields as error:
            for violation in error.violations[: MAX_VIOLATIONS - violations]:
                fields.refuse(f"list[{place}].{violation.field}", violation.description)
            violations += len(error.violations)
            if violations >= MAX_VIOLATIONS:
                fields.refuse("list", "it has more mistakes than are named here; mend these first")
                return documents
        documents.append(Document(text, meta))
    return documents


class ContentDigest:
    """The digest of a list of documents, taken while it comes in."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.count = 0

    def update(self, documents: Sequence[Document]) -> None:
        """Add the next documents."""
        for document in documents:
            line = _canonical({"content": document.content, "meta": dict(document.meta)})
            self._digest.update(line.encode() + b"\n")
        self.count += len(documents)

    def hexdigest(self) -> str:
        """The SHA-256 of what was added, 64 lower-case hexadecimal digits."""
        return self._digest.hexdigest()


def content_digest(documents: Sequence[Document]) -> str:
    """The digest of a list of documents, 64 lower-case hexadecimal digits."""
    digest = ContentDigest()
    digest.update(documents)
    return digest.hexdigest()


def _meta_value(name: str, value: object) -> MetaValue:
    if not 1 <= len(name) <= MAX_KEY_CHARACTERS or "\0" in name:
        raise InvalidValue(
            f"the value's name is no name; give 1 to {MAX_KEY_CHARACTERS} characters without NUL"
        )
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise InvalidValue(f"it is {value}; give a finite number")
        return float(value)
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidValue("it has a NUL character; remove it")
        return value
    kind = "null" if value is None else "an object" if isinstance(value, Mapping) else "a list"
    raise InvalidValue(f"it is {kind}; give a string, a number or a boolean")


def _canonical(value: Mapping[str, object]) -> str:
    return json.dumps(
        _whole(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _whole(value: object) -> object:
    """Whole numbers as integers, so that 1 and 1.0 are one number."""
    if isinstance(value, Mapping):
        return {name: _whole(each) for name, each in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value

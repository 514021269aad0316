"""The version digest of a dataset, over canonical JSON.

A version is named by the SHA-256 of one JSON document in the form of RFC 8785 (JSON
Canonicalization Scheme), so that any implementation of it can check a version:

    {"format": "evalpool.dataset/1", "kind": …, "parameters": {…}, "parts": {…},
     "questions": [{"answer": 1, "choices": […], "context": …, "question": …}, …]}

A question that is answered freely has "expected", a list of texts, and "answer" is 0. The
questions' places are their order. Titles, descriptions, licences and the form of the file that
the questions came from are no part of it: the same questions from CSV and from Parquet are one
version. Numbers are integers within ±(2^53 - 1), the only ones that every JSON reader reads alike;
a part states a fraction as text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from evalpool_dataset.question import Question

FORMAT = "evalpool.dataset/1"
MAX_SAFE_INTEGER = 2**53 - 1

JsonValue = None | bool | int | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]
"""What canonical JSON is made of here. There are no floats."""


class NotCanonical(ValueError):
    """A value that has no single JSON form."""


def canonical_json(value: JsonValue) -> bytes:
    """Serialise a value in the form of RFC 8785.

    Returns:
        UTF-8 without white space, the members of objects sorted by their names' UTF-16 code units.

    Raises:
        NotCanonical: A float, an integer beyond ±(2^53 - 1), a name that is no text, or text with
            an unpaired surrogate.
    """
    try:
        return json.dumps(_ordered(value), ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise NotCanonical("a text has an unpaired surrogate, which UTF-8 cannot hold") from error


def content_digest(value: JsonValue) -> str:
    """The SHA-256 of a value's canonical JSON: 64 lower-case hexadecimal digits.

    Raises:
        NotCanonical: The value has no single JSON form.
    """
    return hashlib.sha256(canonical_json(value)).hexdigest()


def version_digest(
    *,
    kind: str,
    parts: Mapping[str, JsonValue],
    parameters: Mapping[str, JsonValue],
    questions: Iterable[Question],
) -> str:
    """The digest that names a version.

    Args:
        kind: The dataset's kind, such as "siqa".
        parts: What each of the parts says of itself (`spec()`), by the part's name.
        parameters: What the dataset's owner chose.
        questions: In order. They are hashed one by one and not kept.

    Returns:
        64 lower-case hexadecimal digits.

    Raises:
        NotCanonical: A value has no single JSON form.
    """
    head = canonical_json(
        {"format": FORMAT, "kind": kind, "parameters": parameters, "parts": parts}
    )
    # "questions" sorts after the other members, so the document can be hashed as it grows.
    digest = hashlib.sha256(head[:-1] + b',"questions":[')
    for index, question in enumerate(questions):
        if index:
            digest.update(b",")
        digest.update(canonical_json(question_document(question)))
    digest.update(b"]}")
    return digest.hexdigest()


def question_document(question: Question) -> dict[str, JsonValue]:
    """A question as it stands in the version's document."""
    document: dict[str, JsonValue] = {
        "answer": question.answer,
        "choices": list(question.choices),
        "context": question.context,
        "question": question.question,
    }
    if question.expected:
        document["expected"] = list(question.expected)
    return document


def _ordered(value: JsonValue) -> JsonValue:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise NotCanonical(f"{value} is beyond ±(2^53 - 1); give it as text")
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise NotCanonical("a member's name is no text")
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return {name: _ordered(value[name]) for name in names}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_ordered(item) for item in value]
    raise NotCanonical(
        f"{type(value).__name__} cannot be in canonical JSON; use text, whole numbers, booleans, "
        "null, lists and maps"
    )

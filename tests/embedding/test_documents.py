"""What a document may hold, and the digest of a list of them."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool.values import Fields, InvalidFields, InvalidValue
from evalpool_embedding.documents import (
    ContentDigest,
    Document,
    content_digest,
    parse_alias,
    parse_content,
    parse_documents,
    parse_meta,
)

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
metas = st.dictionaries(
    texts.filter(bool),
    texts | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
    max_size=3,
)
documents = st.builds(Document, texts.filter(bool), metas)


def test_the_digest_is_that_of_canonical_lines() -> None:
    listed = [Document("é \n", {"b": 1.0, "a": True, "c": 0.5}), Document("x", {})]

    lines = '{"content":"é \\n","meta":{"a":true,"b":1,"c":0.5}}\n{"content":"x","meta":{}}\n'
    assert content_digest(listed) == hashlib.sha256(lines.encode()).hexdigest()


@given(st.lists(documents, min_size=1, max_size=4), st.data())
def test_the_digest_does_not_depend_on_how_a_list_is_cut(
    listed: list[Document], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(listed)))
    digest = ContentDigest()
    digest.update(listed[:cut])
    digest.update(listed[cut:])

    assert digest.hexdigest() == content_digest(listed)
    assert digest.count == len(listed)


@given(st.lists(documents, max_size=3), st.lists(documents, max_size=3))
def test_lists_that_differ_have_different_digests(
    one: list[Document], other: list[Document]
) -> None:
    assert (content_digest(one) == content_digest(other)) == (one == other)


def test_the_order_of_documents_counts_and_that_of_meta_does_not() -> None:
    a, b = Document("a", {"x": 1.0, "y": "z"}), Document("b", {})
    same = Document("a", {"y": "z", "x": 1.0})

    assert content_digest([a, b]) != content_digest([b, a])
    assert content_digest([a, b]) == content_digest([same, b])


@pytest.mark.parametrize("text", ["", "a b", "ü", "a/b", "x" * 129])
def test_a_name_of_other_characters_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="1 to 128"):
        parse_alias(text)


@pytest.mark.parametrize(
    ("text", "problem"), [("", "empty"), ("é" * 40_000, "80000"), ("\0", "NUL")]
)
def test_a_text_without_end_beginning_or_with_nul_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidValue, match=problem):
        parse_content(text)


def test_a_text_of_exactly_64_kib_is_taken() -> None:
    assert parse_content("é" * 32_768)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "null"),
        ([1], "list"),
        ({"a": 1}, "object"),
        (math.nan, "finite"),
        (math.inf, "finite"),
        ("a\0", "NUL"),
    ],
)
def test_meta_of_another_kind_is_refused_by_its_name(value: object, problem: str) -> None:
    with pytest.raises(InvalidFields, match=f"title: .*{problem}"):
        parse_meta({"title": value, "fine": 1})


def test_meta_without_bounds_is_refused() -> None:
    with pytest.raises(InvalidValue, match="at most 64"):
        parse_meta({str(n): 1 for n in range(65)})
    with pytest.raises(InvalidValue, match="at most 16384"):
        parse_meta({"a": "x" * 20_000})


def test_every_mistake_of_a_list_is_named_by_its_place() -> None:
    fields = Fields()
    parse_documents(fields, [("", {}), ("fine", {"a": None, "b": [1]})], first=10)

    with pytest.raises(InvalidFields) as raised:
        fields.check()
    assert [v.field for v in raised.value.violations] == [
        "list[10].content",
        "list[11].meta.a",
        "list[11].meta.b",
    ]


def test_a_list_of_many_mistakes_names_only_some() -> None:
    fields = Fields()
    parse_documents(fields, [("", {})] * 1000)

    with pytest.raises(InvalidFields) as raised:
        fields.check()
    assert len(raised.value.violations) == 51


@pytest.mark.parametrize("count", [0, 1001])
def test_a_list_of_none_or_too_many_is_refused(count: int) -> None:
    fields = Fields()
    parse_documents(fields, [("a", {})] * count)

    with pytest.raises(InvalidFields, match=f"{count} documents; give 1 to 1000"):
        fields.check()

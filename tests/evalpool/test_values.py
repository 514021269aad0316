"""Value types: what a field may hold."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evalpool import values
from evalpool.values import (
    MAX_QUANTITY,
    Fields,
    InvalidFields,
    InvalidValue,
    Tag,
    Violation,
    parse_address,
    parse_dataset_id,
    parse_digest,
    parse_integer,
    parse_positive_quantity,
    parse_quantity,
    parse_request_id,
    parse_tag,
    parse_tags,
    parse_text,
    parse_transfer_id,
)

quantities = st.integers(0, MAX_QUANTITY)


@given(quantities)
@example(0)
@example(MAX_QUANTITY)
@example(2**53 + 1)
def test_every_quantity_up_to_39_digits_is_parsed_exactly(quantity: int) -> None:
    assert parse_quantity(str(quantity)) == quantity


@given(st.text() | st.from_regex(r"[-+ ]?[0-9_.,eE]{1,45}\n?") | st.integers().map(str))
@example("1.5")
@example("-3")
@example("+3")
@example("1e3")
@example("007")
@example("00")
@example("")
@example(" 1")
@example("1 ")
@example("1\n")
@example("1_000")
@example("٣")
@example("²")
@example("NaN")
@example("1" + "0" * 39)
def test_everything_else_is_refused(text: str) -> None:
    is_one = text.isascii() and text.isdigit() and len(text) <= 39 and str(int(text)) == text
    if is_one:
        assert parse_quantity(text) == int(text)
    else:
        with pytest.raises(InvalidValue, match="is no quantity"):
            parse_quantity(text)


def test_a_positive_quantity_is_not_zero() -> None:
    assert parse_positive_quantity("1") == 1
    with pytest.raises(InvalidValue, match="zero"):
        parse_positive_quantity("0")


@pytest.mark.parametrize("parse", [parse_address, parse_transfer_id])
@given(raw=st.binary(min_size=32, max_size=32))
def test_32_bytes_have_one_spelling(parse: object, raw: bytes) -> None:
    text = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spellings = [text[:-1] + last for last in alphabet]
    accepted = []
    for spelling in spellings:
        try:
            accepted.append(parse(spelling))  # type: ignore[operator]
        except InvalidValue:
            continue
    assert text in accepted
    assert len(accepted) == 16


@pytest.mark.parametrize(
    "text", ["", "A" * 42, "A" * 44, "A" * 42 + "=", "A" * 42 + "\n", "é" * 43]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="43 characters"):
        parse_address(text)


@pytest.mark.parametrize("text", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 63 + "\n"])
def test_what_is_no_digest_is_refused(text: str) -> None:
    assert parse_digest("0af9" * 16) == "0af9" * 16
    with pytest.raises(InvalidValue, match="64 lower-case"):
        parse_digest(text)


@pytest.mark.parametrize("text", ["", "a" * 129, "a b", "a/b", "ä", "a\n"])
def test_what_is_no_request_id_is_refused(text: str) -> None:
    assert parse_request_id("payout:A-z_0.9") == "payout:A-z_0.9"
    with pytest.raises(InvalidValue, match="1 to 128"):
        parse_request_id(text)


@pytest.mark.parametrize("text", ["", "-a", "a-", "A", "a_b", "a" * 64, "a\n", "ä"])
def test_what_is_no_dataset_id_is_refused(text: str) -> None:
    assert [parse_dataset_id(good) for good in ("a", "siqa-dev", "1", "a" * 63)]
    with pytest.raises(InvalidValue, match="1 to 63"):
        parse_dataset_id(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [("", "v"), ("1a", "v"), ("a b", "v"), ("a" * 65, "v"), ("a", "x\n"), ("a", "\x7f")],
)
def test_what_is_no_tag_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidValue):
        parse_tag(name, value)


def test_a_tags_value_is_bounded_in_bytes() -> None:
    assert parse_tag("X-Title", "ü" * 512).value == "ü" * 512
    with pytest.raises(InvalidValue, match="1024 bytes"):
        parse_tag("X-Title", "ü" * 512 + "a")


def test_tags_are_told_apart_without_regard_to_case() -> None:
    assert parse_tags([("X-A", "1"), ("X-B", "2")]) == (Tag("X-A", "1"), Tag("X-B", "2"))
    with pytest.raises(InvalidValue, match="comes twice"):
        parse_tags([("X-A", "1"), ("x-a", "1")])


def test_tags_are_bounded_in_number() -> None:
    assert len(parse_tags((f"a{n}", "") for n in range(32))) == 32
    with pytest.raises(InvalidValue, match="33 tags"):
        parse_tags((f"a{n}", "") for n in range(33))


def test_a_texts_length_is_counted_in_characters() -> None:
    assert parse_text("üüü", at_least=3, at_most=3) == "üüü"
    for text in ("üü", "üüüü", "a\0b"):
        with pytest.raises(InvalidValue):
            parse_text(text, at_least=3, at_most=3)


def test_zero_stands_for_the_default_only_where_there_is_one() -> None:
    assert parse_integer(0, at_least=1, at_most=9, default=5) == 5
    assert [parse_integer(n, at_least=1, at_most=9) for n in (1, 9)] == [1, 9]
    for value in (0, 10, -1):
        with pytest.raises(InvalidValue, match="1 to 9"):
            parse_integer(value, at_least=1, at_most=9)


def test_all_fields_in_violation_are_told_at_once() -> None:
    fields = Fields()
    fields.parse("quantity", parse_quantity, "x")
    good = fields.parse("request_id", parse_request_id, "ok")
    fields.refuse("mode", "it is not set")

    def nested() -> None:
        raise InvalidFields([Violation("b", "wrong")])

    fields.attempt("a", nested)

    with pytest.raises(InvalidFields) as caught:
        fields.check()
    assert good == "ok"
    assert [v.field for v in caught.value.violations] == ["quantity", "mode", "a.b"]
    assert caught.value.violations == fields.violations


@given(st.text().filter(lambda text: len(text) != 64))
def test_a_text_in_an_error_is_short_and_printable(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_digest(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_the_rule_in_the_contract_is_the_rule_in_the_code() -> None:
    assert values._QUANTITY.pattern == "0|[1-9][0-9]{0,38}"
    assert re.fullmatch(values._QUANTITY.pattern, str(MAX_QUANTITY))
    assert not re.fullmatch(values._QUANTITY.pattern, str(MAX_QUANTITY + 1))

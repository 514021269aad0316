"""Page tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_runtime.errors import InvalidRequest
from evalpool_runtime.pages import PageTokens

TOKENS = PageTokens(b"secret")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def assert_refused(tokens: PageTokens, method: str, filters: object, token: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tokens.decode(method, filters, token)
    assert caught.value.reason_name == "INVALID_PAGE_TOKEN"
    assert [violation.field for violation in caught.value.violations] == ["page_token"]


@given(json_values, json_values)
def test_a_cursor_comes_back_for_the_same_method_and_filters(
    filters: object, cursor: object
) -> None:
    token = TOKENS.encode("List", filters, cursor)
    assert TOKENS.decode("List", filters, token) == cursor


def test_no_token_is_the_first_page() -> None:
    assert TOKENS.decode("List", {}, "") is None


def test_a_token_is_good_for_its_method_filters_and_service_only() -> None:
    token = TOKENS.encode("List", {"owner": "a"}, 5)
    assert_refused(TOKENS, "Other", {"owner": "a"}, token)
    assert_refused(TOKENS, "List", {"owner": "b"}, token)
    assert_refused(PageTokens(b"other"), "List", {"owner": "a"}, token)


def test_the_order_of_filters_does_not_matter() -> None:
    token = TOKENS.encode("List", {"a": 1, "b": 2}, 5)
    assert TOKENS.decode("List", {"b": 2, "a": 1}, token) == 5


@given(st.text(min_size=1))
def test_made_up_tokens_are_refused(token: str) -> None:
    assert_refused(TOKENS, "List", {}, token)


@given(st.integers(0), st.sampled_from("ABab01-_"))
def test_a_changed_token_is_refused(place: int, other: str) -> None:
    token = TOKENS.encode("List", {}, [1, 2])
    place %= len(token) - 1  # the last character may have stray bits
    if token[place] != other:
        assert_refused(TOKENS, "List", {}, token[:place] + other + token[place + 1 :])

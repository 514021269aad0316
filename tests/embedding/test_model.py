"""What all embedding models share: batches, lengths, digests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_embedding.model import digest_of, plan_batches, scaled


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 10), st.integers(1, 1000))
def test_batches_have_every_text_once_within_their_bounds(
    lengths: list[int], max_texts: int, max_tokens: int
) -> None:
    batches = list(plan_batches(lengths, max_texts=max_texts, max_tokens=max_tokens))

    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[place] for place in batch)
        assert len(batch) <= max_texts
        assert len(batch) == 1 or len(batch) * longest <= max_tokens
    shortest_first = [lengths[place] for batch in batches for place in batch]
    assert shortest_first == sorted(lengths)


def test_a_row_of_nothing_stays_one() -> None:
    assert scaled(np.zeros((1, 3), np.float32)).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_cannot_be_compared_are_an_error(number: float) -> None:
    with pytest.raises(ArithmeticError, match="not finite"):
        scaled(np.array([[1.0, number]], np.float32))


def test_a_digest_is_of_every_part_by_its_name() -> None:
    digest = digest_of(onnx="a", tokenizer="b", context_length=256)

    assert digest == digest_of(context_length=256, tokenizer="b", onnx="a")
    assert len({digest, digest_of(onnx="b", tokenizer="a", context_length=256)}) == 2
    assert digest != digest_of(onnx="a", tokenizer="b", context_length=257)

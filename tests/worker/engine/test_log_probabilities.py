"""Log-probabilities from 32-bit logits are those of exact arithmetic, to within 32 bits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evalpool_worker.engine.log_probabilities import (
    likeliest_tokens,
    log_normalisers,
    token_log_probabilities,
)


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_they_agree_with_exact_sums(rows: int) -> None:
    logits = np.random.default_rng(rows).normal(0, 12, (rows, 50_000)).astype(np.float32)
    normalisers = log_normalisers(logits)
    for row in range(rows):
        highest = float(logits[row].max())
        exact = highest + math.log(math.fsum(math.exp(float(x) - highest) for x in logits[row]))
        assert normalisers[row] == pytest.approx(exact, abs=1e-6)
    chosen = token_log_probabilities(
        logits, normalisers, np.array([0, rows - 1]), np.array([7, 49_999])
    )
    assert chosen[0] == pytest.approx(float(logits[0, 7]) - normalisers[0])
    assert chosen[1] == pytest.approx(float(logits[-1, 49_999]) - normalisers[-1])


def test_large_logits_do_not_overflow() -> None:
    normalisers = log_normalisers(np.array([[1e4, 1e4]], dtype=np.float32))
    assert normalisers[0] == pytest.approx(1e4 + math.log(2))


def test_a_masked_token_counts_nothing() -> None:
    normalisers = log_normalisers(np.array([[0.0, -np.inf]], dtype=np.float32))
    assert normalisers[0] == 0.0


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_row_that_is_not_finite_shows(wrong: float) -> None:
    logits = np.array([[0.0, wrong, 1.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    normalisers = log_normalisers(logits)
    values = token_log_probabilities(logits, normalisers, np.array([0, 1]), np.array([0, 0]))
    assert not np.isfinite(values[0])
    assert values[1] == pytest.approx(-math.log(3))


def test_the_likeliest_are_those_of_a_whole_sort() -> None:
    logits = np.random.default_rng(1).normal(0, 5, 50_000).astype(np.float32)
    assert likeliest_tokens(logits, 20).tolist() == np.argsort(-logits)[:20].tolist()


def test_of_equal_ones_the_lower_numbers_are_told() -> None:
    logits = np.array([1.0, 3.0, 2.0, 3.0, 2.0, 2.0], dtype=np.float32)
    assert likeliest_tokens(logits, 3).tolist() == [1, 3, 2]
    assert likeliest_tokens(logits, 0).tolist() == []
    assert likeliest_tokens(logits, 9).tolist() == [1, 3, 2, 4, 5, 0]

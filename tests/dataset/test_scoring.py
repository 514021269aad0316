from __future__ import annotations

import math
from fractions import Fraction

import pytest

from evalpool_dataset.scoring import (
    Metric,
    Standing,
    UnusableScores,
    prediction,
    predictions,
    refuse_alike,
    says_nothing,
)
from tests.published import Published


def test_acc_takes_the_largest_sum() -> None:
    assert prediction(Metric.ACC, [-3.0, -2.0, -9.0], ["a", "b", "c"]) == 2


def test_acc_norm_divides_by_characters_and_acc_bytes_by_bytes() -> None:
    # 12 characters: -1.0 each; 6 characters of two bytes: -1.5 a character, -0.75 a byte.
    sums, choices = [-12.0, -9.0], ["twelve chars", "éééééé"]
    assert predictions(sums, choices) == {
        Metric.ACC: 2,
        Metric.ACC_NORM: 1,
        Metric.ACC_BYTES: 2,
    }


def test_a_tie_goes_to_the_first() -> None:
    for metric in Metric:
        assert prediction(metric, [-4.0, -2.0, -2.0], ["aa", "bb", "cc"]) == 2


@pytest.mark.parametrize(
    "sums", [[-1.0], [-1.0, math.nan], [-math.inf, -1.0], [-1.0, 0.5], [], [-1.0, -2.0, -3.0]]
)
def test_scores_that_cannot_be_are_refused(sums: list[float]) -> None:
    for metric in Metric:
        with pytest.raises(UnusableScores):
            prediction(metric, sums, ["a", "b"])


def test_certainty_rounded_up_is_accepted() -> None:
    assert prediction(Metric.ACC, [1e-6, -3.0], ["a", "b"]) == 1


def test_scores_that_are_all_alike_say_nothing() -> None:
    assert says_nothing([0.0, 0.0, 0.0], ["a", "b", "c"])
    assert not says_nothing([0.0, 0.0, -1.0], ["a", "b", "c"])
    # Alike choices must score alike, so that proves nothing.
    assert not says_nothing([-1.0, -1.0], ["a", "a"])


def test_a_run_is_refused_only_when_all_of_it_says_nothing() -> None:
    refuse_alike(0, 0)
    refuse_alike(9, 10)
    with pytest.raises(UnusableScores, match="all of the 10 questions"):
        refuse_alike(10, 10)


def test_the_reference_sums_give_the_reference_accuracies(published: Published) -> None:
    right = dict.fromkeys(Metric, 0)
    for question, score in zip(published.rows(), published.reference(), strict=True):
        choices = [question[f"answer{letter}"] for letter in "ABC"]
        predicted = predictions(score["sum_logprob"], choices)
        assert {m: score[f"{m}_choice"] for m in Metric} == predicted
        for metric in Metric:
            right[metric] += predicted[metric] == int(question["label"])
    assert tuple(right.items()) == published.right


def test_score_and_progress_are_exact() -> None:
    standing = Standing(1, 1, 3, 7)
    assert standing.score == Fraction(1, 3)
    assert standing.progress == Fraction(3, 7)


def test_nothing_done_scores_nothing() -> None:
    standing = Standing(0, 1, 0, 5)
    assert (standing.score, standing.progress) == (Fraction(0), Fraction(0))
    assert Standing(0, 1, 0, 0).progress == 0


def test_the_score_of_graded_answers_is_the_share_of_the_points_that_could_be_given() -> None:
    standing = Standing(17, 10, 2, 4)
    assert standing.score == Fraction(17, 20)
    assert standing.progress == Fraction(1, 2)


@pytest.mark.parametrize(
    "counts", [(2, 1, 1, 3), (1, 1, 4, 3), (-1, 1, 0, 0), (21, 10, 2, 3), (0, 0, 1, 1)]
)
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        Standing(*counts)

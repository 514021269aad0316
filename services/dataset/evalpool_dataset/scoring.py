"""What a set of log-probabilities predicts, and what a run's counts are worth.

Definitions of the metrics are those of lm-evaluation-harness (`lm_eval/api/task.py`,
`process_results`): `acc` is the choice with the largest Σ log p, `acc_norm` that with the largest Σ
log p per character of the choice, `acc_bytes` per byte of its UTF-8 text; the delimiter before the
choice is not counted; a tie goes to the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

Z_95 = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution."""

# A probability of 1 may come out of single precision as a log p a little above 0.
_ROUNDING = 1e-3


class Metric(StrEnum):
    """Which choice log-likelihoods predict."""

    ACC = "acc"
    ACC_NORM = "acc_norm"
    ACC_BYTES = "acc_bytes"


class UnusableScores(ValueError):
    """Scores from which nothing can be predicted. The engine's failure, never a wrong answer."""


def prediction(metric: Metric, sums: Sequence[float], choices: Sequence[str]) -> int:
    """The choice that the metric predicts.

    Args:
        metric: The metric.
        sums: Each choice's Σ log p (natural logarithm), in the order of `choices`.
        choices: The choices without delimiter, none empty.

    Returns:
        The choice's place, from 1; of equals the first.

    Raises:
        UnusableScores: A sum is missing, is not finite, or is above zero.
    """
    if len(sums) != len(choices) or not choices:
        raise UnusableScores(f"there are {len(sums)} scores for {len(choices)} choices")
    for place, total in enumerate(sums, start=1):
        if not math.isfinite(total):
            raise UnusableScores(f"the score of choice {place} is {total}")
        if total > _ROUNDING:
            raise UnusableScores(f"the score of choice {place} is {total}, a probability above 1")
    values = [total / _length(metric, choice) for total, choice in zip(sums, choices, strict=True)]
    return values.index(max(values)) + 1


def predictions(sums: Sequence[float], choices: Sequence[str]) -> dict[Metric, int]:
    """The choice that each metric predicts, from 1.

    Raises:
        UnusableScores: As `prediction` does.
    """
    return {metric: prediction(metric, sums, choices) for metric in Metric}


def says_nothing(sums: Sequence[float], choices: Sequence[str]) -> bool:
    """Whether choices that differ all score exactly alike, which no working engine gives."""
    return len(set(choices)) > 1 and len(set(sums)) == 1


def refuse_alike(alike: int, compared: int) -> None:
    """Refuse a run whose choice scores are all alike.

    Such a run is exactly chance level and says nothing about the model; llama.cpp's own scorer
    published them silently (llama.cpp#27174).

    Args:
        alike: Questions of the run for which `says_nothing`.
        compared: Questions of the run whose choices differ.

    Raises:
        UnusableScores: Every question compared is alike.
    """
    if compared and alike >= compared:
        raise UnusableScores(
            f"all choices scored alike in all of the {compared} questions, so the scores say "
            "nothing"
        )


def _length(metric: Metric, choice: str) -> int:
    match metric:
        case Metric.ACC:
            return 1
        case Metric.ACC_NORM:
            return len(choice)
        case Metric.ACC_BYTES:
            return len(choice.encode())


@dataclass(frozen=True, slots=True)
class Standing:
    """A run's counts.

    Attributes:
        correct: Questions answered rightly.
        done: Questions done.
        total: Questions in all.
    """

    correct: int
    done: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.done <= self.total:
            raise ValueError(
                f"{self.correct} correct of {self.done} done of {self.total} cannot be"
            )

    @property
    def score(self) -> Fraction:
        """The share correct / done, exactly; 0 where nothing is done."""
        return Fraction(self.correct, self.done) if self.done else Fraction(0)

    @property
    def progress(self) -> Fraction:
        """The share done / total, exactly; 0 where there are no questions."""
        return Fraction(self.done, self.total) if self.total else Fraction(0)

    @property
    def complete(self) -> bool:
        """Every question is done, and there is one."""
        return self.total > 0 and self.done == self.total

    @property
    def standard_error(self) -> float | None:
        """The score's standard error; see `standard_error`."""
        return standard_error(self.correct, self.done)

    @property
    def interval(self) -> tuple[float, float]:
        """The score's 95 % Wilson interval; see `wilson_interval`."""
        return wilson_interval(self.correct, self.done)


def standard_error(correct: int, done: int) -> float | None:
    """The standard error of a mean of zeros and ones: sqrt(p (1 - p) / (n - 1)).

    The sample's standard deviation (with n - 1) over sqrt(n), as lm-evaluation-harness reports it.

    Returns:
        The error, or None below two answers, where it is not defined.
    """
    if done < 2:
        return None
    return math.sqrt(correct * (done - correct) / (done * done * (done - 1)))


def wilson_interval(correct: int, done: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval for a proportion.

    With p = correct / done: (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n). Unlike the
    interval p ± z · error it stays within 0 and 1 and holds for small n and extreme p. Source: E.
    B. Wilson (1927), "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22, 209-212, doi 10.1080/01621459.1927.10502953.

    Args:
        correct: Successes.
        done: Trials.
        z: The standard normal quantile; 1.96 for 95 %.

    Returns:
        Lower and upper bound; (0, 1) where there are no trials.

    Raises:
        ValueError: `correct` is not between 0 and `done`.
    """
    if not 0 <= correct <= done:
        raise ValueError(f"{correct} correct of {done} cannot be")
    if not done:
        return 0.0, 1.0
    square = z * z
    # Both sides times n: integers as long as possible, so that nothing is lost for large n.
    centre = correct + square / 2
    spread = z * math.sqrt(correct * (done - correct) / done + square / 4)
    low = 0.0 if correct == 0 else (centre - spread) / (done + square)
    high = 1.0 if correct == done else (centre + spread) / (done + square)
    return low, high


@dataclass(frozen=True, slots=True)
class Paired:
    """Two runs compared on the questions that both have done.

    Attributes:
        both: Right in both.
        first_only: Right in the first alone.
        second_only: Right in the second alone.
        neither: Right in none.
    """

    both: int
    first_only: int
    second_only: int
    neither: int

    @property
    def p_value(self) -> Fraction:
        """McNemar's exact test, two-sided: how likely a gap this wide is between equals.

        Under the hypothesis that both are equally good, the questions that only one got right fall
        to either like coins. Twice the smaller tail of Binomial(n, 1/2), at most 1. Source: Q.
        McNemar (1947), Psychometrika 12, 153-157, doi 10.1007/BF02295996.
        """
        trials = self.first_only + self.second_only
        fewer = min(self.first_only, self.second_only)
        tail = sum(math.comb(trials, k) for k in range(fewer + 1))
        return min(Fraction(1), Fraction(2 * tail, 2**trials))


def compare(pairs: Iterable[tuple[bool, bool]]) -> Paired:
    """Compare two runs, given for each question whether the first and the second got it right."""
    counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    for pair in pairs:
        counts[pair] += 1
    return Paired(
        both=counts[True, True],
        first_only=counts[True, False],
        second_only=counts[False, True],
        neither=counts[False, False],
    )

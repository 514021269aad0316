"""What a set of log-probabilities predicts, and what a run's counts are worth.

Definitions of the metrics are those of lm-evaluation-harness (`lm_eval/api/task.py`,
`process_results`): `acc` is the choice with the largest Σ log p, `acc_norm` that with the largest Σ
log p per character of the choice, `acc_bytes` per byte of its UTF-8 text; the delimiter before the
choice is not counted; a tie goes to the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

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
        points: The points that were given.
        full_marks: The points that one question can give.
        done: Questions done.
        total: Questions in all.
    """

    points: int
    full_marks: int
    done: int
    total: int

    def __post_init__(self) -> None:
        possible = 0 <= self.points <= self.full_marks * self.done
        if not possible or not 0 <= self.done <= self.total or self.full_marks < 1:
            raise ValueError(
                f"{self.points} points, {self.full_marks} a question, for {self.done} done of "
                f"{self.total} cannot be"
            )

    @property
    def score(self) -> Fraction:
        """The share of the points that could be given, exactly; 0 where nothing is done."""
        possible = self.full_marks * self.done
        return Fraction(self.points, possible) if possible else Fraction(0)

    @property
    def progress(self) -> Fraction:
        """The share done / total, exactly; 0 where there are no questions."""
        return Fraction(self.done, self.total) if self.total else Fraction(0)

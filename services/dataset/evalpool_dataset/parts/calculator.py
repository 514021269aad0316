"""The score calculators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evalpool_dataset import scoring
from evalpool_dataset.filters import ExactMatch
from evalpool_dataset.parts.base import Spec
from evalpool_dataset.question import Question
from evalpool_dataset.scoring import Metric


@dataclass(frozen=True, slots=True)
class ShareOfRightAnswers:
    """The likeliest choice is the answer; a run's score is the share of right ones."""

    def predictions(self, sums: Sequence[float], choices: Sequence[str]) -> Mapping[Metric, int]:
        """The choice that each metric predicts, from 1.

        Raises:
            UnusableScores: Nothing can be predicted from them.
        """
        return scoring.predictions(sums, choices)

    def is_right(self, text: str, question: Question) -> bool:
        """Never asked for: the kinds are not used with `exact_match`.

        Raises:
            ValueError: Always.
        """
        raise ValueError("a choice is no text to compare")

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "share/1"}


@dataclass(frozen=True, slots=True)
class ShareOfMatches:
    """A text is right that is expected; a run's score is the share of right ones.

    Attributes:
        ignoring: What counts for nothing.
    """

    ignoring: ExactMatch = field(default_factory=ExactMatch)

    def predictions(self, sums: Sequence[float], choices: Sequence[str]) -> Mapping[Metric, int]:
        """Never asked for: the kinds are not used with `loglikelihood`.

        Raises:
            ValueError: Always.
        """
        raise ValueError("there is nothing to choose from")

    def is_right(self, text: str, question: Question) -> bool:
        """Whether it is one of the expected texts."""
        return self.ignoring.is_match(text, question.expected)

    def spec(self) -> Spec:
        """For the digest."""
        return {"ignoring": self.ignoring.spec(), "revision": "matches/1"}

"""The score calculator of multiple choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evalpool_dataset import scoring
from evalpool_dataset.parts.base import Spec
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

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "share/1"}

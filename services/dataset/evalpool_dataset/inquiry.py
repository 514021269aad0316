"""What is asked of the herd for a question, and what its answer means. Pure.

Choices go out in a permuted order (`evalpool_dataset.permutation`); here answers come back into the
question's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evalpool_dataset.parts import Continuations, Conversation, Parts
from evalpool_dataset.permutation import Permutation, permutation
from evalpool_dataset.question import Question
from evalpool_dataset.scoring import Metric, UnusableScores, says_nothing


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as the herd gets it.

    Attributes:
        question: The question, in its own order.
        order: The order in which its choices are shown.
        parts: The dataset's parts.
    """

    question: Question
    order: Permutation
    parts: Parts

    @property
    def continuations(self) -> Continuations:
        """For `loglikelihood`: the prompt and the choices' texts, in the order shown."""
        plain = self.parts.prompt.continuations(self.question)
        prompts = self.order.shown(plain.prompts) if plain.prompts else ()
        return Continuations(plain.prompt, self.order.shown(plain.texts), prompts)

    @property
    def conversation(self) -> Conversation:
        """For `letter`: the options in the order shown."""
        return self.parts.prompt.conversation(self.question.rearranged(self.order.order))

    @property
    def grammar(self) -> str:
        """For `letter`: what replies are held to; empty for nothing."""
        if not self.parts.evaluator.constrained:
            return ""
        return self.parts.retriever.grammar(len(self.question.choices))


@dataclass(frozen=True, slots=True)
class Scored:
    """What sums of log-probabilities mean.

    Attributes:
        prediction: The choice that counts, from 1.
        predictions: The choice by each metric, from 1.
        sums: In the question's order.
        alike: All choices scored exactly alike, though they differ.
        compared: The choices differ, so that `alike` says something.
    """

    prediction: int
    predictions: dict[str, int]
    sums: tuple[float, ...]
    alike: bool
    compared: bool


def ask(parts: Parts, seed: bytes, version_digest: str, question: Question) -> Asked:
    """Ready a question for the herd.

    Args:
        parts: The dataset's parts.
        seed: The secret that orders follow from.
        version_digest: Names the version within the seed.
        question: The question.
    """
    name = f"{version_digest}:{question.ordinal}"
    return Asked(question, permutation(seed, name, len(question.choices)), parts)


def score(asked: Asked, sums_shown: Sequence[float]) -> Scored:
    """Read the sums of the choices, given in the order shown.

    Raises:
        UnusableScores: Nothing can be predicted from them: one is missing or is no log-probability.
    """
    if len(sums_shown) != len(asked.order.order):
        raise UnusableScores(
            f"there are {len(sums_shown)} scores for {len(asked.order.order)} choices"
        )
    sums = asked.order.restored(sums_shown)
    choices = asked.question.choices
    predictions = asked.parts.calculator.predictions(sums, choices)
    metric: Metric = asked.parts.evaluator.metric
    return Scored(
        prediction=predictions[metric],
        predictions={name.value: place for name, place in predictions.items()},
        sums=sums,
        alike=says_nothing(sums, choices),
        compared=len(set(choices)) > 1,
    )


def read_reply(asked: Asked, reply: str) -> int:
    """The choice that a reply means, from 1 in the question's order; 0 for none."""
    return asked.order.original(asked.parts.retriever.retrieve(reply, len(asked.question.choices)))

"""What is asked of the herd for a question, and what its answer means. Pure.

Choices go out in a permuted order (`evalpool_dataset.permutation`); here answers come back into the
question's order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
        """For models that write: the options, if there are any, in the order shown."""
        if self.question.expected:
            return self.parts.prompt.conversation(self.question)
        return self.parts.prompt.conversation(self.question.rearranged(self.order.order))

    @property
    def grammar(self) -> str:
        """For models that write: what replies are held to; empty for nothing."""
        if self.question.expected or not self.parts.evaluator.constrained:
            return ""
        return self.parts.retriever.grammar(len(self.question.choices))

    def based_on(self, context: str) -> Asked:
        """The same question, to be answered with another context."""
        return replace(self, question=replace(self.question, context=context))


@dataclass(frozen=True, slots=True)
class Scored:
    """What sums of log-probabilities mean.

    Attributes:
        prediction: The choice that counts, from 1.
        points: What it is given.
        right: Whether it is right, by each metric.
        predictions: The choice by each metric, from 1.
        sums: In the question's order.
        alike: All choices scored exactly alike, though they differ.
        compared: The choices differ, so that `alike` says something.
    """

    prediction: int
    points: int
    right: Mapping[str, bool]
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
    places = {name.value: place for name, place in predictions.items()}
    right = {name: place == asked.question.answer for name, place in places.items()}
    return Scored(
        prediction=predictions[metric],
        points=int(right[metric]),
        right=right,
        predictions=places,
        sums=sums,
        alike=says_nothing(sums, choices),
        compared=len(set(choices)) > 1,
    )


def read_reply(asked: Asked, reply: str) -> int:
    """The choice that a reply means, from 1 in the question's order; 0 for none."""
    return asked.order.original(asked.parts.retriever.retrieve(reply, len(asked.question.choices)))


@dataclass(frozen=True, slots=True)
class Compared:
    """What a reply's texts are worth.

    Attributes:
        points: What it is given: 1 where the text that decides is right.
        right: Whether each text is right, under the name that lm-evaluation-harness gives that.
        extracted: The texts, by the names of the filters.
    """

    points: int
    right: Mapping[str, bool]
    extracted: dict[str, str]


def compare(asked: Asked, reply: str) -> Compared:
    """Take the texts from a reply and compare them with the expected ones."""
    extracted = dict(asked.parts.retriever.extract(reply, asked.question))
    calculator = asked.parts.calculator
    right = {
        f"exact_match,{name}": calculator.is_right(text, asked.question)
        for name, text in extracted.items()
    }
    return Compared(int(next(iter(right.values()))), right, extracted)

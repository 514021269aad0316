"""The six parts of a dataset, each of which can be replaced.

| part | says |
|---|---|
| Info | what the dataset is |
| Loader | what a row of its files holds |
| PromptTemplate | what a model is given of a question |
| ResultRetriever | which choice a reply means, or which text it gives |
| ScoreCalculator | which choice scores mean, or which texts are right |
| EvaluatorSpec | how answers are obtained |

A dataset's version covers what its parts do: each part's `spec()` goes into the digest, so a part
whose behaviour changes gets a new revision there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from evalpool_dataset.digest import JsonValue
from evalpool_dataset.loaders.reading import RowForm
from evalpool_dataset.parts.rules import EvaluatorSpec
from evalpool_dataset.question import Question
from evalpool_dataset.scoring import Metric

Spec = Mapping[str, JsonValue]
"""What a part says of itself, for the version's digest."""


@dataclass(frozen=True, slots=True)
class Continuations:
    """A prompt and the texts that may continue it, for `loglikelihood`.

    Attributes:
        prompt: The prompt.
        texts: One a choice, with the leading delimiter.
        prompts: The prompt of each choice, where each has its own; then `prompt` is empty.
    """

    prompt: str
    texts: tuple[str, ...]
    prompts: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The prompt, for people."""
        return self.prompt or "\n".join(self.prompts)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a model is asked to write on.

    Attributes:
        system: The system prompt; empty for none.
        user: The user's turn.
    """

    system: str
    user: str


class Info(Protocol):
    """What the dataset is. Its kind is in the digest; what is written for people is not."""

    @property
    def kind(self) -> str:
        """The kind's name, such as "siqa"."""

    @property
    def description(self) -> str:
        """One or two sentences for people."""

    def spec(self) -> Spec:
        """For the digest."""


class Loader(RowForm, Protocol):
    """What a row of the dataset's files holds."""

    def spec(self) -> Spec:
        """For the digest."""


class PromptTemplate(Protocol):
    """What a model is given of a question."""

    def continuations(self, question: Question) -> Continuations:
        """For `loglikelihood`."""

    def conversation(self, question: Question) -> Conversation:
        """For `letter`, `exact_match` and `judge`."""

    def spec(self) -> Spec:
        """For the digest."""


class ResultRetriever(Protocol):
    """What a reply means."""

    def retrieve(self, reply: str, choices: int) -> int:
        """For `letter`: the choice's place, from 1; 0 where the reply means none."""

    def grammar(self, choices: int) -> str:
        """For `letter`: a GBNF grammar of the replies that mean a choice."""

    def extract(self, reply: str, question: Question) -> Mapping[str, str]:
        """For `exact_match`: the texts to compare, by the names of the ways to them.

        The first one decides; there is at least one.
        """

    def spec(self) -> Spec:
        """For the digest."""


class ScoreCalculator(Protocol):
    """What is right."""

    def predictions(self, sums: Sequence[float], choices: Sequence[str]) -> Mapping[Metric, int]:
        """For `loglikelihood`: the choice that each metric predicts, from 1.

        Raises:
            UnusableScores: Nothing can be predicted from them.
        """

    def is_right(self, text: str, question: Question) -> bool:
        """For `exact_match`: whether a text is one of those that are right."""

    def spec(self) -> Spec:
        """For the digest."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A dataset's six parts.

    Attributes:
        info: What it is.
        loader: What a row holds.
        prompt: What a model is given.
        retriever: Which choice a reply means.
        calculator: Which choice scores mean.
        evaluator: How answers are obtained by default.
    """

    info: Info
    loader: Loader
    prompt: PromptTemplate
    retriever: ResultRetriever
    calculator: ScoreCalculator
    evaluator: EvaluatorSpec

    def specs(self) -> dict[str, Spec]:
        """What all parts say of themselves, by the part's name, for the digest."""
        return {
            "evaluator": self.evaluator.spec(),
            "info": self.info.spec(),
            "loader": self.loader.spec(),
            "prompt_template": self.prompt.spec(),
            "result_retriever": self.retriever.spec(),
            "score_calculator": self.calculator.spec(),
        }

"""The six parts of a dataset, each of which can be replaced.

| part | says |
|---|---|
| Info | what the dataset is |
| Loader | what a row of its files holds |
| PromptTemplate | what a model is given of a question |
| ResultRetriever | which choice a reply means |
| ScoreCalculator | which choice scores mean |
| EvaluatorSpec | how answers are obtained |

A dataset's version covers what its parts do: each part's `spec()` goes into the digest, so a part
whose behaviour changes gets a new revision there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from evalpool_dataset.digest import JsonValue
from evalpool_dataset.loaders.reading import RowForm
from evalpool_dataset.question import Question
from evalpool_dataset.scoring import Metric

Spec = Mapping[str, JsonValue]
"""What a part says of itself, for the version's digest."""


class Evaluator(StrEnum):
    """How an answer is obtained and scored."""

    LOGLIKELIHOOD = "loglikelihood"
    LETTER = "letter"
    JUDGE = "judge"


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
    """What a model is asked under `letter`.

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
        """For `letter`."""

    def spec(self) -> Spec:
        """For the digest."""


class ResultRetriever(Protocol):
    """Which choice a reply means."""

    def retrieve(self, reply: str, choices: int) -> int:
        """The choice's place, from 1; 0 where the reply means none."""

    def grammar(self, choices: int) -> str:
        """A GBNF grammar of the replies that mean a choice."""

    def spec(self) -> Spec:
        """For the digest."""


class ScoreCalculator(Protocol):
    """Which choice scores mean."""

    def predictions(self, sums: Sequence[float], choices: Sequence[str]) -> Mapping[Metric, int]:
        """The choice that each metric predicts, from 1.

        Raises:
            UnusableScores: Nothing can be predicted from them.
        """

    def spec(self) -> Spec:
        """For the digest."""


@dataclass(frozen=True, slots=True)
class EvaluatorSpec:
    """How answers are obtained.

    Attributes:
        evaluator: The way.
        metric: Which prediction counts under `loglikelihood`.
        constrained: Under `letter`, replies are held to the retriever's grammar.
        max_tokens: Tokens of a reply at most, under `letter`.
    """

    evaluator: Evaluator = Evaluator.LOGLIKELIHOOD
    metric: Metric = Metric.ACC
    constrained: bool = True
    max_tokens: int = 4

    def spec(self) -> Spec:
        """For the digest: what has a bearing on the result under this evaluator."""
        match self.evaluator:
            case Evaluator.LOGLIKELIHOOD:
                return {"evaluator": self.evaluator.value, "metric": self.metric.value}
            case Evaluator.LETTER:
                return {
                    "constrained": self.constrained,
                    "evaluator": self.evaluator.value,
                    "max_tokens": self.max_tokens,
                }
            case Evaluator.JUDGE:
                return {"evaluator": self.evaluator.value}


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

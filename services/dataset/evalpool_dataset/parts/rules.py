"""How answers are obtained: the evaluators, and the rules that they follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from evalpool_dataset.digest import JsonValue
from evalpool_dataset.scoring import Metric


class Evaluator(StrEnum):
    """How an answer is obtained and scored."""

    LOGLIKELIHOOD = "loglikelihood"
    LETTER = "letter"
    JUDGE = "judge"
    EXACT_MATCH = "exact_match"


WRITING = frozenset({Evaluator.LETTER, Evaluator.EXACT_MATCH, Evaluator.JUDGE})
"""The evaluators under which models write replies."""

FULL_GRADE = 10
"""The best grade of a judge, the worst being 0."""


class PromptForm(StrEnum):
    """How a question is put to a model that writes a reply."""

    PLAIN = "plain"
    CHAT = "chat"


_FORMS = {
    Evaluator.LETTER: PromptForm.CHAT,
    Evaluator.EXACT_MATCH: PromptForm.PLAIN,
    Evaluator.JUDGE: PromptForm.CHAT,
}
# 256 are lm-evaluation-harness's `max_gen_toks`, 40 Llama-Herder's.
_TOKENS = {Evaluator.LETTER: 4, Evaluator.EXACT_MATCH: 256, Evaluator.JUDGE: 40}


@dataclass(frozen=True, slots=True)
class ReplyRules:
    """How models are to write.

    Attributes:
        form: How a question is put; None for the evaluator's way.
        max_tokens: Tokens at most; None for the evaluator's number.
        stop: The reply ends before any of these.
        temperature: A decimal number, as text, since a digest knows no fractions; "0" always takes
            the likeliest token.
        seed: Of the choice of tokens.
    """

    form: PromptForm | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    temperature: str = "0"
    seed: int = 0

    def under(self, evaluator: Evaluator) -> ReplyRules:
        """The same with an evaluator's defaults, where that has models write."""
        if evaluator not in WRITING:
            return self
        return replace(
            self,
            form=self.form or _FORMS[evaluator],
            max_tokens=self.max_tokens or _TOKENS[evaluator],
        )

    def document(self) -> dict[str, JsonValue]:
        """What was chosen; what was not is left out."""
        document: dict[str, JsonValue] = {
            "form": self.form.value if self.form else None,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "stop": list(self.stop),
            "temperature": "" if self.temperature == "0" else self.temperature,
        }
        return {name: value for name, value in document.items() if value}


@dataclass(frozen=True, slots=True)
class JudgeRules:
    """What grades replies.

    Attributes:
        model: The digest of the model.
        seed: Of its choice of tokens.
    """

    model: str
    seed: int = 0

    def document(self) -> dict[str, JsonValue]:
        """What was chosen."""
        return {"model": self.model, "seed": self.seed}


@dataclass(frozen=True, slots=True)
class RetrievalRules:
    """What answers with what a document set yields.

    Attributes:
        model: The digest of the model.
        top_k: Documents that a question is answered with.
        embedder: The digest of the model that finds them.
    """

    model: str
    top_k: int = 4
    embedder: str = ""

    def document(self) -> dict[str, JsonValue]:
        """What was chosen."""
        return {"embedder": self.embedder, "model": self.model, "top_k": self.top_k}


@dataclass(frozen=True, slots=True)
class EvaluatorSpec:
    """How answers are obtained.

    Attributes:
        evaluator: The way.
        metric: Which prediction counts under `loglikelihood`.
        constrained: Under `letter`, replies are held to the retriever's grammar.
        reply: How models are to write, where they do.
        judge: What grades, under `judge`.
        retrieval: What answers, where document sets are the subjects.
    """

    evaluator: Evaluator = Evaluator.LOGLIKELIHOOD
    metric: Metric = Metric.ACC
    constrained: bool = True
    reply: ReplyRules = field(default_factory=ReplyRules)
    judge: JudgeRules | None = None
    retrieval: RetrievalRules | None = None

    @property
    def rules(self) -> ReplyRules:
        """How models are to write, with the evaluator's defaults."""
        return self.reply.under(self.evaluator)

    @property
    def full_marks(self) -> int:
        """The points that one question can give."""
        return FULL_GRADE if self.evaluator is Evaluator.JUDGE else 1

    def spec(self) -> Mapping[str, JsonValue]:
        """For the digest: what has a bearing on the result under this evaluator."""
        spec: dict[str, JsonValue] = {"evaluator": self.evaluator.value}
        if self.evaluator is Evaluator.LOGLIKELIHOOD:
            return spec | {"metric": self.metric.value}
        # The number of tokens always stands there: it is the evaluator's own, and may change.
        spec |= self.reply.document() | {"max_tokens": self.rules.max_tokens}
        if self.evaluator is Evaluator.LETTER:
            spec["constrained"] = self.constrained
        if self.judge is not None:
            spec["judge"] = self.judge.document()
        if self.retrieval is not None:
            spec["retrieval"] = self.retrieval.document()
        return spec

"""What a dataset's owner chooses of its parts, and how that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evalpool_dataset.digest import JsonValue
from evalpool_dataset.filters import (
    AS_IT_IS,
    ExactMatch,
    Filter,
    MultiChoiceRegexFilter,
    Pipeline,
    RegexFilter,
)
from evalpool_dataset.parts.prompt import SYSTEM_PROMPT
from evalpool_dataset.parts.rules import (
    Evaluator,
    JudgeRules,
    PromptForm,
    ReplyRules,
    RetrievalRules,
)
from evalpool_dataset.scoring import Metric


@dataclass(frozen=True, slots=True)
class FewShot:
    """The examples that whoever made the dataset wrote out before each question.

    Attributes:
        number: Examples before each question.
        sampler: How they were chosen.
        seed: That they were drawn with.
        split: That they were taken from.
    """

    number: int
    sampler: str = ""
    seed: int = 0
    split: str = ""

    def document(self) -> dict[str, JsonValue]:
        """What was told."""
        return {
            "number": self.number,
            "sampler": self.sampler,
            "seed": self.seed,
            "split": self.split,
        }


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a dataset's owner chooses.

    Attributes:
        evaluator: The default evaluator.
        metric: Which prediction counts under `loglikelihood`.
        system_prompt: The system prompt where models write.
        reply: How they write.
        filters: What is taken from a reply under `exact_match`; the first decides.
        exact_match: What counts for nothing there.
        judge: What grades under `judge`; None where nothing does.
        retrieval: Makes document sets the subjects; None where models are.
        few_shot: The examples before each question; None where nothing is known of any.
    """

    evaluator: Evaluator = Evaluator.LOGLIKELIHOOD
    metric: Metric = Metric.ACC
    system_prompt: str = SYSTEM_PROMPT
    reply: ReplyRules = field(default_factory=ReplyRules)
    filters: tuple[Pipeline, ...] = AS_IT_IS
    exact_match: ExactMatch = field(default_factory=ExactMatch)
    judge: JudgeRules | None = None
    retrieval: RetrievalRules | None = None
    few_shot: FewShot | None = None

    def spec(self) -> dict[str, JsonValue]:
        """For the digest, and to be kept: what was left at its default is left out.

        So a release with more to choose from leaves the digests of earlier versions as they are.
        """
        return {
            "evaluator": self.evaluator.value,
            "metric": self.metric.value,
            "system_prompt": self.system_prompt,
            **self.further(),
        }

    def further(self) -> dict[str, JsonValue]:
        """What was chosen beside evaluator, metric and system prompt; the inverse of `read`."""
        ignored = self.exact_match.spec() if self.exact_match != ExactMatch() else None
        filters = [pipeline.spec() for pipeline in self.filters]
        return _chosen(
            exact_match=ignored,
            few_shot=self.few_shot.document() if self.few_shot else None,
            filters=filters if self.filters != AS_IT_IS else None,
            judge=self.judge.document() if self.judge else None,
            reply=self.reply.document(),
            retrieval=self.retrieval.document() if self.retrieval else None,
        )

    @staticmethod
    def read(
        evaluator: Evaluator, metric: Metric, system_prompt: str, further: Mapping[str, Any]
    ) -> Parameters:
        """The parameters as they were kept."""
        reply = dict(further.get("reply", {}))
        form = reply.pop("form", None)
        stop = tuple(reply.pop("stop", ()))
        judge, retrieval = further.get("judge"), further.get("retrieval")
        few_shot, filters = further.get("few_shot"), further.get("filters")
        return Parameters(
            evaluator=evaluator,
            metric=metric,
            system_prompt=system_prompt,
            reply=ReplyRules(form=PromptForm(form) if form else None, stop=stop, **reply),
            filters=AS_IT_IS if filters is None else tuple(map(_pipeline, filters)),
            exact_match=ExactMatch(**_with_tuples(further.get("exact_match", {}))),
            judge=JudgeRules(**judge) if judge else None,
            retrieval=RetrievalRules(**retrieval) if retrieval else None,
            few_shot=FewShot(**few_shot) if few_shot else None,
        )


def _chosen(**values: JsonValue) -> dict[str, JsonValue]:
    return {name: value for name, value in values.items() if value}


def _pipeline(document: Mapping[str, Any]) -> Pipeline:
    return Pipeline(document["name"], tuple(map(_filter, document["steps"])))


_FILTERS: Mapping[str, type[Filter]] = {
    "regex/1": RegexFilter,
    "multi_choice_regex/1": MultiChoiceRegexFilter,
}


def _filter(document: Mapping[str, Any]) -> Filter:
    values = _with_tuples(document)
    return _FILTERS[values.pop("step")](**values)


def _with_tuples(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
    }

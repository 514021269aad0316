"""What of a version can be asked with the kinds and parts that are installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from evalpool_dataset.digest import JsonValue
from evalpool_dataset.installed import (
    NotUsable,
    evaluator_parameters,
    parameters_of,
    usable_evaluators,
    usable_parts,
)
from evalpool_dataset.parts import SIQA, Evaluator, EvaluatorSpec, Kind, Parts, ReplyRules
from evalpool_dataset.parts.base import Spec
from evalpool_dataset.parts.calculator import ShareOfRightAnswers
from evalpool_dataset.parts.prompt import ChoicePrompt
from evalpool_dataset.parts.retriever import LetterRetriever
from evalpool_dataset.parts.rows import SiqaRows
from evalpool_dataset.store.definitions import Version
from tests.dataset.stored_run import definition

LETTER = Evaluator.LETTER
SUMS = Evaluator.LOGLIKELIHOOD
DATASET = definition()
MADE_WITH = SIQA.parts(parameters_of(DATASET)).specs()
VERSION = Version(1, "d", "v" * 64, MADE_WITH, 3)


@dataclass(frozen=True)
class NextPrompt(ChoicePrompt):
    def spec(self) -> Spec:
        return {**super().spec(), "revision": "choice/2"}


class NextRetriever(LetterRetriever):
    def spec(self) -> Spec:
        return {"revision": "letter/2"}


class NextCalculator(ShareOfRightAnswers):
    def spec(self) -> Spec:
        return {"revision": "share/2"}


class NextRows(SiqaRows):
    def spec(self) -> Spec:
        return {"revision": "siqa/2"}


def released(**parts: object) -> Mapping[str, Kind]:
    """The kinds as a release has them that has changed parts."""
    build = SIQA.build
    return {"siqa": replace(SIQA, build=lambda p: replace(build(p), **parts))}  # type: ignore[arg-type]


def parts(
    kinds: Mapping[str, Kind],
    evaluator: Evaluator = SUMS,
    parameters: Mapping[str, JsonValue] | None = None,
) -> Parts:
    if parameters is None:
        parameters = evaluator_parameters({"siqa": SIQA}, DATASET, VERSION, evaluator)
    return usable_parts(kinds, DATASET, VERSION, evaluator, parameters)


@pytest.mark.parametrize("evaluator", [SUMS, LETTER])
def test_the_parts_that_a_version_was_made_with_answer_its_questions(evaluator: Evaluator) -> None:
    assert parts({"siqa": SIQA}, evaluator).evaluator.evaluator is evaluator
    assert usable_evaluators({"siqa": SIQA}, DATASET, VERSION) == ["letter", "loglikelihood"]


@pytest.mark.parametrize(
    ("field", "part", "name"),
    [
        ("prompt", NextPrompt(""), "prompt_template"),
        ("retriever", NextRetriever(), "result_retriever"),
        ("calculator", NextCalculator(), "score_calculator"),
    ],
)
def test_another_part_does_not_answer_for_the_one_that_it_was_made_with(
    field: str, part: object, name: str
) -> None:
    kinds = released(**{field: part})

    for evaluator in (SUMS, LETTER):
        with pytest.raises(NotUsable, match=f"made with another {name} of the kind") as caught:
            parts(kinds, evaluator)
        assert caught.value.problem.code == "UNAVAILABLE"
    assert usable_evaluators(kinds, DATASET, VERSION) == []


def test_all_changed_parts_are_named() -> None:
    kinds = released(prompt=NextPrompt(""), calculator=NextCalculator())
    with pytest.raises(NotUsable, match="another prompt_template and another score_calculator of"):
        parts(kinds)


def test_rows_that_are_loaded_need_their_loader_no_more() -> None:
    assert parts(released(loader=NextRows()))


def test_a_dataset_without_questions_can_be_judged_with_what_is_installed() -> None:
    assert usable_evaluators(released(prompt=NextPrompt("")), DATASET, None) == [
        "letter",
        "loglikelihood",
    ]


def test_a_run_keeps_the_parameters_that_its_evaluator_was_started_with() -> None:
    longer = released(evaluator=EvaluatorSpec(LETTER, reply=ReplyRules(max_tokens=8)))
    old = evaluator_parameters({"siqa": SIQA}, DATASET, VERSION, LETTER)
    new = evaluator_parameters(longer, DATASET, VERSION, LETTER)

    assert (old["max_tokens"], new["max_tokens"]) == (4, 8)
    with pytest.raises(NotUsable, match="made with another evaluator of the kind"):
        parts(longer, LETTER, old)
    assert parts(longer, LETTER, new).evaluator.rules.max_tokens == 8


def test_the_evaluator_that_is_a_versions_own_is_the_one_that_it_was_made_with() -> None:
    changed = released(evaluator=EvaluatorSpec(LETTER, reply=ReplyRules(max_tokens=8)))
    own = replace(DATASET, evaluator="letter")
    version = replace(VERSION, parts=SIQA.parts(parameters_of(own)).specs())

    assert evaluator_parameters(changed, own, version, LETTER)["max_tokens"] == 4
    assert LETTER not in usable_evaluators(changed, own, version)


def test_a_kind_that_is_broken_or_gone_answers_nothing() -> None:
    def explode(_: object) -> Parts:
        raise OSError("no disk")

    with pytest.raises(NotUsable, match="broken: no disk; mend it") as caught:
        parts({"siqa": replace(SIQA, build=explode)})
    assert caught.value.problem.code == "INTERNAL"
    with pytest.raises(NotUsable, match="is not installed") as caught:
        parts({})
    assert caught.value.problem.code == "UNAVAILABLE"
    assert usable_evaluators({}, DATASET, VERSION) == []

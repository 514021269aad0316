from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest

from evalpool_dataset.parts import (
    SIQA,
    BrokenKind,
    Evaluator,
    EvaluatorSpec,
    JudgeRules,
    Kind,
    Parameters,
    PromptForm,
    ReplyRules,
    RetrievalRules,
    installed_kinds,
)
from evalpool_dataset.parts.kinds import ENTRY_POINT_GROUP
from evalpool_dataset.scoring import Metric

OURS = replace(SIQA, name="ours")
NOT_A_KIND = 7


def make_kind() -> Kind:
    return OURS


def explode() -> Kind:
    raise OSError("no disk")


def point(target: str) -> EntryPoint:
    return EntryPoint("x", f"{__name__}:{target}", ENTRY_POINT_GROUP)


def test_the_kinds_built_in_are_there() -> None:
    assert {"siqa", "multiple_choice", "continuation", "ending"} <= installed_kinds().keys()


@pytest.mark.parametrize("target", ["OURS", "make_kind"])
def test_a_distribution_adds_a_kind(target: str) -> None:
    assert installed_kinds([point(target)])["ours"] is OURS


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("explode", "no disk"),
        ("missing", "cannot be loaded"),
        ("NOT_A_KIND", "cannot be loaded"),
        ("dict", "not a Kind"),
    ],
)
def test_a_kind_that_cannot_be_used_is_told_by_name(target: str, told: str) -> None:
    found = point(target) if target != "dict" else EntryPoint("x", "builtins:dict", "g")
    with pytest.raises(BrokenKind, match=told):
        installed_kinds([found])


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(BrokenKind, match="taken"):
        installed_kinds([point("OURS"), point("OURS")])


def test_an_evaluator_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="use letter or loglikelihood"):
        SIQA.parts(Parameters(evaluator=Evaluator.JUDGE))


def test_the_owners_parameters_reach_the_parts() -> None:
    parts = SIQA.parts(Parameters(Evaluator.LETTER, Metric.ACC_NORM, "Be brief."))
    assert parts.evaluator == EvaluatorSpec(Evaluator.LETTER, Metric.ACC_NORM)
    assert parts.prompt.spec()["system_prompt"] == "Be brief."
    assert set(parts.specs()) == {
        "evaluator",
        "info",
        "loader",
        "prompt_template",
        "result_retriever",
        "score_calculator",
    }


def test_an_evaluators_spec_says_what_bears_on_the_result() -> None:
    assert EvaluatorSpec(Evaluator.LOGLIKELIHOOD, Metric.ACC_BYTES).spec() == {
        "evaluator": "loglikelihood",
        "metric": "acc_bytes",
    }
    assert EvaluatorSpec(Evaluator.LETTER).spec() == {
        "evaluator": "letter",
        "constrained": True,
        "max_tokens": 4,
    }
    longer = ReplyRules(
        form=PromptForm.PLAIN, max_tokens=8, stop=("\n",), temperature="0.5", seed=3
    )
    assert EvaluatorSpec(Evaluator.EXACT_MATCH, reply=longer).spec() == {
        "evaluator": "exact_match",
        "form": "plain",
        "max_tokens": 8,
        "seed": 3,
        "stop": ["\n"],
        "temperature": "0.5",
    }
    judge, retrieval = JudgeRules("a" * 64), RetrievalRules("b" * 64, 3, "e" * 64)
    assert EvaluatorSpec(Evaluator.JUDGE, judge=judge, retrieval=retrieval).spec() == {
        "evaluator": "judge",
        "judge": {"model": "a" * 64, "seed": 0},
        "max_tokens": 40,
        "retrieval": {"embedder": "e" * 64, "model": "b" * 64, "top_k": 3},
    }

"""Runs whose kind or parts are not what they were made with any more, on both databases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from evalpool_dataset.parts import EvaluatorSpec, Kind, Parameters, Parts, installed_kinds
from evalpool_dataset.parts.base import Spec
from evalpool_dataset.parts.prompt import ChoicePrompt
from evalpool_dataset.run import RunState
from tests.dataset.runner_harness import Herd, Running, ended
from tests.dataset.stored_run import add_run


def gone(kinds: Mapping[str, Kind]) -> Mapping[str, Kind]:
    return {name: kind for name, kind in kinds.items() if name != "siqa"}


def without_evaluators(kinds: Mapping[str, Kind]) -> Mapping[str, Kind]:
    return {**kinds, "siqa": replace(kinds["siqa"], evaluators=frozenset())}


def broken(kinds: Mapping[str, Kind]) -> Mapping[str, Kind]:
    def build(parameters: Parameters) -> Parts:
        raise ArithmeticError("a bug")

    return {**kinds, "siqa": replace(kinds["siqa"], build=build)}


@dataclass(frozen=True)
class AnotherPrompt(ChoicePrompt):
    def spec(self) -> Spec:
        return {**super().spec(), "revision": "choice/2"}


class AnotherMetric(EvaluatorSpec):
    def spec(self) -> Spec:
        return {**super().spec(), "metric": "another"}


def with_part(**parts: Any) -> Callable[[Mapping[str, Kind]], Mapping[str, Kind]]:
    """The kind as another release has it."""

    def change(kinds: Mapping[str, Kind]) -> Mapping[str, Kind]:
        siqa = kinds["siqa"]
        build = siqa.build
        return {**kinds, "siqa": replace(siqa, build=lambda p: replace(build(p), **parts))}

    return change


@pytest.mark.parametrize(
    ("change", "reason", "code"),
    [
        (
            with_part(prompt=AnotherPrompt()),
            'it was made with another prompt_template of the kind "siqa" than is installed',
            "UNAVAILABLE",
        ),
        (with_part(evaluator=AnotherMetric()), "made with another evaluator", "UNAVAILABLE"),
        (gone, 'the kind "siqa" with the evaluator loglikelihood is not installed', "UNAVAILABLE"),
        (without_evaluators, "is not installed", "UNAVAILABLE"),
        (broken, 'the kind "siqa" is broken: a bug; mend it', "INTERNAL"),
    ],
)
async def test_a_run_whose_kind_cannot_be_used_fails_and_the_others_go_on(
    running: Running,
    change: Callable[[Mapping[str, Kind]], Mapping[str, Kind]],
    reason: str,
    code: str,
) -> None:
    await running.database.write(
        lambda c: add_run(c, questions=3, run="other", dataset="e", kind="multiple_choice")
    )
    running.begin(running.runner(Herd(), kinds=change(installed_kinds())))

    while not ended(other := await running.run("other")):
        await running.changes.wait(running.changes.version, 0.1)
    failed = await running.run()

    assert (other.state, other.done) == (RunState.COMPLETE, 3)
    assert (failed.state, failed.failed, failed.reason_code) == (RunState.FAILED, 20, code)
    assert reason in failed.reason

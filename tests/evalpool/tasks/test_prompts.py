"""The prompts of lm-evaluation-harness's tasks, letter by letter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evalpool.tasks import ChoicePrompt, TaskError, TaskFile, choice_prompts, row_of
from tests.evalpool.tasks.lm_eval_files import PROMPTS, rows, task


def with_shots(file: TaskFile, number: int) -> TaskFile:
    return replace(file, shots=replace(file.shots, number=number))


def asked(prompt: ChoicePrompt) -> list[list[str]]:
    """Pairs of a context and its continuation, as the harness asks them."""
    contexts = prompt.prompts
    if len(contexts) == 1:
        contexts *= len(prompt.continuations)
    return [list(pair) for pair in zip(contexts, prompt.continuations, strict=True)]


@pytest.mark.parametrize("case", sorted(PROMPTS))
def test_a_task_asks_what_the_harness_asks(case: str) -> None:
    name, _, shots = case.partition("/")
    made = list(choice_prompts(with_shots(task(name), int(shots)), rows(name)))
    assert [asked(prompt) for prompt in made] == [each["requests"] for each in PROMPTS[case]]
    assert [list(prompt.choices) for prompt in made] == [each["choices"] for each in PROMPTS[case]]
    assert [prompt.answer for prompt in made] == [each["answer"] for each in PROMPTS[case]]


@pytest.mark.parametrize(
    ("split", "changes", "message"),
    [
        ("validation", {"label": "4"}, r"validation, row 2: doc_to_target: 3 is no place among 3"),
        (
            "validation",
            {"label": "one"},
            r"validation, row 2: doc_to_target: -1 is no|row 2: .*'-1'",
        ),
        ("validation", {"answerB": None}, r"validation, row 2: doc_to_choice: .* no list of texts"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(
    split: str, changes: dict[str, object], message: str
) -> None:
    given = rows("social_iqa")
    given[split][1] |= changes
    with pytest.raises(TaskError, match=message):
        list(choice_prompts(task("social_iqa"), given))


def test_a_column_that_is_missing_is_named() -> None:
    given = rows("social_iqa")
    del given["validation"][0]["context"]
    with pytest.raises(TaskError, match=r"row 1: doc_to_text: .*'context' is undefined"):
        list(choice_prompts(task("social_iqa"), given))


def test_a_split_without_rows_is_named() -> None:
    with pytest.raises(TaskError, match="validation: there are no rows of this split"):
        list(choice_prompts(task("social_iqa"), {"train": []}))


@pytest.mark.parametrize("number", [7, 8])
def test_too_many_examples_are_refused(number: int) -> None:
    with pytest.raises(TaskError, match="num_fewshot: "):
        list(choice_prompts(with_shots(task("social_iqa"), number), rows("social_iqa")))


def test_a_row_holds_the_delimiter_at_the_end_of_its_prompt() -> None:
    first = next(choice_prompts(task("social_iqa"), rows("social_iqa")))
    assert row_of(first) == {
        "prompt": "Q: Ada gave Ben her coat because it rained. How would Ben feel?\nA: ",
        "choices": ["thankful", "angry at Ada", "hungry"],
        "answer_index": 0,
    }


def test_choices_that_are_prompts_make_a_row_with_their_ending() -> None:
    first = next(choice_prompts(task("winogrande"), rows("winogrande")))
    assert row_of(first) == {
        "choices": [
            "Sarah was better than Maria at task 7 so Sarah",
            "Sarah was better than Maria at task 7 so Maria",
        ],
        "ending": " always got the easier cases.",
        "answer_index": 1,
    }


def test_choices_that_are_prompts_are_not_normalised() -> None:
    with pytest.raises(TaskError, match="metric_list: acc_norm says nothing"):
        list(choice_prompts(replace(task("winogrande"), metric="acc_norm"), rows("winogrande")))

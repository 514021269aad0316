"""Rows whose questions are answered freely."""

from __future__ import annotations

from typing import Any

import pytest

from evalpool_dataset.loaders.reading import Row
from evalpool_dataset.parts import GenerationRows, OpenEndedRows
from evalpool_dataset.question import Question


def test_a_prompt_and_what_is_expected_are_kept_letter_by_letter() -> None:
    row = Row(1, {"prompt": "Q: 3 + 4?\nA:", "expected": " 7", "id": "x", "_note": 1})
    assert GenerationRows().parse(row, 1) == Question(1, "", "Q: 3 + 4?\nA:", expected=(" 7",))


def test_any_of_several_texts_may_be_right_and_choices_may_be_there_for_filters() -> None:
    row = Row(1, {"prompt": "Where?", "expected": ["(A)", "A"], "choices": ["Rome", "Oslo"]})
    expected = Question(2, "", "Where?", ("Rome", "Oslo"), expected=("(A)", "A"))
    assert GenerationRows().parse(row, 2) == expected


def test_an_open_question_has_the_response_that_is_expected() -> None:
    row = Row(1, {"question": "Why?", "expected_response": "Because.", "context": "It is so."})
    assert OpenEndedRows().parse(row, 1) == Question(1, "It is so.", "Why?", expected=("Because.",))


@pytest.mark.parametrize(
    ("form", "values", "field", "told"),
    [
        (GenerationRows(), {"expected": "7"}, "prompt", "it is missing"),
        (GenerationRows(), {"prompt": "Q", "expected": ""}, "expected", "it is empty"),
        (GenerationRows(), {"prompt": "Q"}, "expected", "it is missing"),
        (GenerationRows(), {"prompt": "Q", "expected": []}, "expected", "it has 0 entries"),
        (GenerationRows(), {"prompt": "Q", "expected": ["7", 7]}, "expected[1]", "7 is no text"),
        (GenerationRows(), {"prompt": "Q", "expected": 7}, "expected", "7 is no text"),
        (GenerationRows(), {"prompt": "Q", "expected": "7", "choices": ["a"]}, "choices", "1 entr"),
        (GenerationRows(), {"prompt": "Q", "expected": "7", "promt": ""}, "promt", "unknown"),
        (OpenEndedRows(), {"question": "Q"}, "expected_response", "it is missing"),
        (OpenEndedRows(), {"question": " ", "expected_response": "A"}, "question", "it is empty"),
        (
            OpenEndedRows(),
            {"question": "Q", "expected_response": ["A"]},
            "expected_resp",
            "no text",
        ),
    ],
)
def test_a_bad_row_is_refused_by_its_field(
    form: GenerationRows | OpenEndedRows, values: dict[str, Any], field: str, told: str
) -> None:
    problems = form.parse(Row(3, values), 1)
    assert isinstance(problems, list)
    (problem,) = problems
    assert problem.line == 3
    assert problem.field.startswith(field)
    assert told in problem.message

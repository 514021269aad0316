from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from statistics import mean

import pytest

from evalpool_dataset.loaders import Format, LoadedQuestions, QuestionLoader
from evalpool_dataset.parts import SIQA
from evalpool_dataset.question import Question

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


@pytest.fixture(scope="module")
def questions() -> tuple[Question, ...]:
    loader = QuestionLoader(Format.JSON_LINES, SIQA.parts(SIQA.defaults).loader)
    loader.feed((SAMPLES / "everyday.jsonl").read_bytes())
    loaded = loader.finish()
    assert isinstance(loaded, LoadedQuestions)
    return loaded.questions


def test_there_are_at_least_150_questions_of_three_choices(
    questions: tuple[Question, ...],
) -> None:
    assert len(questions) >= 150
    assert {len(question.choices) for question in questions} == {3}
    assert all(question.context for question in questions)


def test_the_right_answers_are_balanced(questions: tuple[Question, ...]) -> None:
    assert set(Counter(question.answer for question in questions).values()) == {len(questions) // 3}


def test_no_situation_and_no_choice_comes_twice(questions: tuple[Question, ...]) -> None:
    assert len({question.context for question in questions}) == len(questions)
    assert all(len(set(question.choices)) == 3 for question in questions)


def test_length_does_not_give_the_answer_away(questions: tuple[Question, ...]) -> None:
    right = [len(question.choices[question.answer - 1]) for question in questions]
    wrong = [
        [len(choice) for i, choice in enumerate(question.choices, 1) if i != question.answer]
        for question in questions
    ]
    assert abs(mean(right) - mean(length for pair in wrong for length in pair)) < 3
    longest = sum(own > max(pair) for own, pair in zip(right, wrong, strict=True))
    shortest = sum(own < min(pair) for own, pair in zip(right, wrong, strict=True))
    # A third would be chance; neither rule may be worth much more.
    assert longest < 0.4 * len(questions)
    assert shortest < 0.4 * len(questions)


def test_texts_are_tidy_and_as_varied_as_in_the_field(questions: tuple[Question, ...]) -> None:
    texts = [[q.context, q.question, *q.choices] for q in questions]
    assert all(text == " ".join(text.split()) for row in texts for text in row)
    assert all(row[1].endswith("?") for row in texts)
    assert sum(any("'" in text for text in row) for row in texts) > 30
    assert sum(not "".join(row).isascii() for row in texts) > 10


def test_the_readme_tells_the_licence_and_the_right_numbers(
    questions: tuple[Question, ...],
) -> None:
    readme = (SAMPLES / "README.md").read_text("utf-8")
    assert "CC0" in readme
    assert re.search(rf"\b{len(questions)} three-way questions", readme)
    assert f"{len(questions) // 3} each of A, B and C" in readme

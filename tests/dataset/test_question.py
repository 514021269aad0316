from __future__ import annotations

import pytest

from evalpool_dataset.question import Question


def question(**changes: object) -> Question:
    fields: dict[str, object] = {
        "ordinal": 1,
        "context": "",
        "question": "Why?",
        "choices": ("a", "b", "c"),
        "answer": 3,
    }
    return Question(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"ordinal": 0},
        {"question": "  "},
        {"choices": ("a",)},
        {"choices": tuple("abcdefghijklmnopqrstuvwxyz!")},
        {"choices": ("a", " ", "c")},
        {"answer": 0},
        {"answer": 4},
    ],
)
def test_a_question_that_cannot_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        question(**changes)


def test_two_choices_may_be_alike() -> None:
    assert question(choices=("a", "b", "a")).letters == "ABC"


def test_a_rearranged_question_keeps_its_right_answer() -> None:
    moved = question().rearranged([2, 0, 1])
    assert moved.choices == ("c", "a", "b")
    assert moved.answer == 1


def test_an_order_that_drops_a_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="no order"):
        question().rearranged([0, 0, 1])

from __future__ import annotations

import pytest

from evalpool_dataset.loaders import Row, RowProblem
from evalpool_dataset.parts.rows import ContinuationRows, EndingRows, MultipleChoiceRows, SiqaRows
from evalpool_dataset.question import Question

SIQA_ROW = {
    "context": "c",
    "question": "q",
    "answerA": "a",
    "answerB": "b",
    "answerC": "c",
    "label": "1",
}
CHOICE_ROW = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 1}


def siqa(**changes: object) -> Question | list[RowProblem]:
    values = {name: v for name, v in (SIQA_ROW | changes).items() if v is not ...}
    return SiqaRows().parse(Row(7, values), 1)


def choice(**changes: object) -> Question | list[RowProblem]:
    values = {name: v for name, v in (CHOICE_ROW | changes).items() if v is not ...}
    return MultipleChoiceRows().parse(Row(7, values), 1)


def only(result: Question | list[RowProblem]) -> tuple[str, str]:
    assert isinstance(result, list)
    (problem,) = result
    assert problem.line == 7
    return problem.field, problem.message


def answer(result: Question | list[RowProblem]) -> int:
    assert isinstance(result, Question), result
    return result.answer


@pytest.mark.parametrize(
    ("given", "place"), [("1", 1), ("3", 3), (2, 2), ("A", 1), ("C", 3), ("03", 3)]
)
def test_an_answer_is_a_number_from_1_or_a_letter(given: object, place: int) -> None:
    assert answer(siqa(label=given)) == place
    assert answer(siqa(label=..., result=given)) == place
    assert answer(choice(answer=given)) == place


@pytest.mark.parametrize(
    "given", ["0", "4", 0, 4, -1, "a", "D", "AB", "1.0", 1.0, True, "N/A", " 1", "²", [1], "9" * 99]
)
def test_an_answer_that_is_none_of_the_choices_is_refused(given: object) -> None:
    field, message = only(siqa(label=given))
    assert field == "label"
    assert "give 1 to 3, or a letter from A to C" in message


@pytest.mark.parametrize("given", [..., None, ""])
def test_a_missing_answer_is_told(given: object) -> None:
    assert only(siqa(label=given)) == (
        "label",
        "the answer is missing; give the choice's number from 1",
    )


def test_two_answers_are_refused() -> None:
    assert only(siqa(result="1"))[0] == "result"
    assert only(choice(answer_index=0))[0] == "answer_index"


def test_an_index_counts_from_0_and_is_no_letter() -> None:
    assert answer(choice(answer=..., answer_index=0)) == 1
    assert answer(choice(answer=..., answer_index="3")) == 4
    for given in (4, -1, "A"):
        field, message = only(choice(answer=..., answer_index=given))
        assert field == "answer_index"
        assert "give 0 to 3" in message
        assert "letter" not in message


@pytest.mark.parametrize("field", ["question", "answerA", "answerB", "answerC"])
@pytest.mark.parametrize("given", ["", "  \n", None, 5, ["a"], "a\0b", "\ud800"])
def test_a_text_that_cannot_be_is_refused(field: str, given: object) -> None:
    assert only(siqa(**{field: given}))[0] == field


def test_context_may_be_empty_but_not_missing_in_social_iqa() -> None:
    assert isinstance(siqa(context=""), Question)
    assert only(siqa(context=...))[0] == "context"
    assert only(siqa(context=None))[0] == "context"


def test_context_may_be_missing_elsewhere() -> None:
    result = choice()
    assert isinstance(result, Question)
    assert result.context == ""
    assert isinstance(choice(context=None), Question)
    assert only(choice(context=3))[0] == "context"


def test_a_misspelt_field_is_refused_and_told_the_right_ones() -> None:
    field, message = only(choice(contxt="lost without a word"))
    assert field == "contxt"
    assert "question, choices, context, id" in message


def test_fields_that_begin_with_an_underscore_are_passed_over() -> None:
    assert isinstance(siqa(_note="x", __index_level_0__=4), Question)


def test_an_id_is_taken() -> None:
    assert isinstance(choice(id="arc-7"), Question)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (..., "choices"),
        (None, "choices"),
        ("a, b", "choices"),
        ({"text": ["a"]}, "choices"),
        ([], "choices"),
        (["a"], "choices"),
        ([str(n) for n in range(27)], "choices"),
        (["a", "", "c"], "choices[1]"),
        (["a", "b", 3], "choices[2]"),
        (["a", None, "c"], "choices[1]"),
    ],
)
def test_choices_that_cannot_be_are_refused(given: object, field: str) -> None:
    assert only(choice(choices=given))[0] == field


def test_26_choices_are_the_most() -> None:
    letters = [chr(ord("A") + n) for n in range(26)]
    assert answer(choice(choices=letters, answer="Z")) == 26


def test_all_problems_of_a_row_are_told_together() -> None:
    result = siqa(question="", answerB=None, label="9", extra=1)
    assert isinstance(result, list)
    assert {problem.field for problem in result} == {"question", "answerB", "label", "extra"}


def test_texts_are_kept_letter_by_letter() -> None:
    result = siqa(answerA="  a ")
    assert isinstance(result, Question)
    assert result.choices[0] == "  a "


@pytest.mark.parametrize(
    ("columns", "labelled", "wrong"),
    [
        (["question", "choices", "answer"], False, []),
        (["question", "choices"], True, []),
        (["question", "choices", "answer", "_x", "id", "context"], False, []),
        (["question", "choices"], False, ["answer"]),
        (["question", "choices", "answer"], True, ["answer"]),
        (["question", "answer", "subject"], False, ["choices", "subject"]),
        (["question", "choices", "answer", "answer_index"], False, ["answer_index"]),
    ],
)
def test_columns_are_checked(columns: list[str], labelled: bool, wrong: list[str]) -> None:
    told = MultipleChoiceRows().check_columns(columns, labelled=labelled)
    assert [field for field, _ in told] == wrong
    assert all(";" in message for _, message in told)


def test_a_prompt_that_is_written_out_is_kept_as_it_stands() -> None:
    row = {"prompt": " Q: é\nA: ", "choices": ["yes", " no "], "answer_index": 1, "id": "x"}
    assert ContinuationRows().parse(Row(7, row), 3) == Question(
        3, "", " Q: é\nA: ", ("yes", " no "), 2
    )


@pytest.mark.parametrize("changes", [{"prompt": " "}, {"prompt": 3}, {"prompt": None}])
def test_a_prompt_that_is_written_out_is_not_empty(changes: dict[str, object]) -> None:
    row = {"prompt": "p", "choices": ["a", "b"], "answer": 1} | changes
    assert only(ContinuationRows().parse(Row(7, row), 1))[0] == "prompt"


@pytest.mark.parametrize("field", ["context", "question"])
def test_what_would_make_a_prompt_is_refused_beside_one(field: str) -> None:
    row = {"prompt": "p", "choices": ["a", "b"], "answer": 1, field: "x"}
    found, message = only(ContinuationRows().parse(Row(7, row), 1))
    assert found == field
    assert "the fields are prompt, choices, id, answer or answer_index" in message


def test_beginnings_have_an_ending() -> None:
    row = {"choices": ["So he", "So she"], "ending": " won.", "answer": "B"}
    assert EndingRows().parse(Row(7, row), 1) == Question(1, "", " won.", ("So he", "So she"), 2)
    assert only(EndingRows().parse(Row(7, row | {"ending": None}), 1))[0] == "ending"

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_dataset.loaders import Format, Limits
from evalpool_dataset.loaders.csv_table import CsvReader
from evalpool_dataset.loaders.problems import RowProblem
from evalpool_dataset.loaders.reading import Row

Load = Any
CSV = Format.CSV
HEADER = "context,question,answerA,answerB,answerC,label\n"
ROW = "Zoë didn't wait.,Why?,late,tired,shy,2\n"


def test_rows_become_questions(load: Load) -> None:
    (question,) = load.questions(HEADER + ROW, CSV)
    assert (question.context, question.choices, question.answer) == (
        "Zoë didn't wait.",
        ("late", "tired", "shy"),
        2,
    )


def test_columns_may_stand_in_any_order_and_end_like_windows(load: Load) -> None:
    content = "label,answerC,answerB,answerA,question,context\r\n3,c,b,a,Why?,\r\n"
    (question,) = load.questions(content, CSV)
    assert (question.context, question.choices, question.answer) == ("", ("a", "b", "c"), 3)


def test_quoted_cells_hold_commas_quotes_and_line_ends(load: Load) -> None:
    content = HEADER + '"He said ""no"",\nand left.",Why?,"a,b",b,c,1\n' + ROW
    first, second = load.questions(content, CSV)
    assert first.context == 'He said "no",\nand left.'
    assert first.choices[0] == "a,b"
    assert second.context == "Zoë didn't wait."


def test_a_bad_row_is_told_by_the_line_where_it_begins(load: Load) -> None:
    content = HEADER + '"two\nlines",Why?,a,b,c,1\n' + ROW.replace(",2", ",5")
    assert (load.problem(content, CSV).line, load.problem(content, CSV).field) == (4, "label")


def test_an_empty_answer_is_missing(load: Load) -> None:
    problem = load.problem(HEADER + ROW.replace(",2", ","), CSV)
    assert (problem.field, "missing" in problem.message) == ("label", True)


@pytest.mark.parametrize("cells", ["a,b\n", "a,b,c,d,e,1,7\n", "a,b,c,d,e\n"])
def test_a_row_with_other_cells_than_the_header_is_refused(load: Load, cells: str) -> None:
    assert "the header 6" in load.problem(HEADER + cells, CSV).message


@pytest.mark.parametrize("cells", ['"a"b,c,d,e,f,1\n', 'it is 5" and 6" long,c,d,e,f,1\n'])
def test_misplaced_quotation_marks_are_refused(load: Load, cells: str) -> None:
    assert "misplaced" in load.problem(HEADER + cells, CSV).message


def test_a_quotation_mark_that_is_never_closed_is_told_by_its_row(load: Load) -> None:
    problem = load.problem(HEADER + ROW + '"open,Why?,a,b,c,1\n' + ROW, CSV)
    assert (problem.line, "never closed" in problem.message) == (3, True)


def test_wrong_columns_are_told_once_and_all_together(load: Load) -> None:
    problems = load.problems("contxt,question,answerA,answerB,answerC\n" + ROW * 9, CSV)
    assert {(p.line, p.field) for p in problems} == {(1, "context"), (1, "contxt"), (1, "label")}


def test_two_answer_columns_are_refused(load: Load) -> None:
    problem = load.problem(HEADER.replace("\n", ",result\n") + ROW, CSV)
    assert "in label too" in problem.message


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("a,b,a\n", "twice"),
        ("a,,b\n", "without a name"),
        ("context;question;label\n", "not separated by commas"),
        ("context\tquestion\n", "not separated by commas"),
        ("", "empty"),
        ("\n\n", "empty"),
    ],
)
def test_a_header_that_cannot_be_is_refused(load: Load, header: str, told: str) -> None:
    assert told in load.problem(header, CSV).message


def test_a_header_without_rows_has_no_questions(load: Load) -> None:
    assert "at least one" in load.problem(HEADER, CSV).message


def test_an_index_column_is_passed_over(load: Load) -> None:
    assert load.questions("_index," + HEADER + "0," + ROW, CSV)


def test_choices_are_a_json_array_in_the_cell(load: Load) -> None:
    content = 'question,choices,answer\nWhy?,"[""a"", ""b, c"", ""d"", ""e""]",D\n'
    (question,) = load.questions(content, CSV, kind="multiple_choice")
    assert (question.choices, question.answer) == (("a", "b, c", "d", "e"), 4)


def test_choices_that_are_no_json_array_are_refused(load: Load) -> None:
    content = "question,choices,answer\nWhy?,a|b|c,1\n"
    problem = load.problem(content, CSV, kind="multiple_choice")
    assert (problem.line, problem.field) == (2, "choices")
    assert "JSON array" in problem.message


def test_a_row_over_many_lines_is_bounded_as_a_whole(load: Load) -> None:
    content = HEADER + '"' + "some text\n" * 500
    result = load(content, CSV, limits=Limits(line_bytes=1000), chunk=64)
    assert [(p.line, "1000 bytes" in p.message) for p in result.told] == [(2, True)]
    assert not result.read_to_end


def test_bytes_that_are_no_utf_8_are_told_by_offset(load: Load) -> None:
    content = HEADER.encode() + b'"a\nb\xff",Why?,a,b,c,1\n'
    problem = load.problem(content, CSV)
    assert problem.line == 2
    assert f"offset {content.index(0xFF)} of" in problem.message


class AnyColumns:
    """A form that takes every column, to look at the cells alone."""

    answer_field = "a"
    answer_fields = frozenset({"a"})
    list_fields: frozenset[str] = frozenset()

    def check_columns(self, columns: object, *, labelled: bool) -> list[tuple[str, str]]:
        return []


cells = st.text(alphabet='ab", \n\té;|', min_size=0)


@given(st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1), st.integers(1, 9))
def test_cells_come_out_as_pythons_writer_put_them_in(rows: list[list[str]], chunk: int) -> None:
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n", quoting=csv.QUOTE_ALL).writerows(
        [["a", "b", "c"], *rows]
    )
    content = written.getvalue().encode()
    reader = CsvReader(Limits(), AnyColumns(), labelled=False)  # type: ignore[arg-type]
    found: list[Row | RowProblem] = []
    for start in range(0, len(content), chunk):
        found += reader.feed(content[start : start + chunk])
    found += reader.finish()
    assert all(isinstance(row, Row) for row in found)
    assert [list(row.values.values()) for row in found if isinstance(row, Row)] == rows

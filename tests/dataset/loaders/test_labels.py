from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from evalpool_dataset.loaders import Format
from tests.published import Published

Load = Any
Line = Callable[..., str]


def test_labels_of_a_file_of_their_own_go_to_the_rows_in_order(load: Load, line: Line) -> None:
    questions = load.questions(line(label=...) * 3, labels=b"3\n1\r\n2\n\n")
    assert [question.answer for question in questions] == [3, 1, 2]


def test_blank_lines_between_rows_do_not_shift_labels(load: Load, line: Line) -> None:
    content = line(label=...) + "\n\n" + line(label=...)
    assert [q.answer for q in load.questions(content, labels=b"3\n1\n")] == [3, 1]


def test_labels_work_with_csv_and_many_choices(load: Load) -> None:
    content = 'question,choices\nWhy?,"[""a"",""b"",""c"",""d""]"\n'
    (question,) = load.questions(content, Format.CSV, kind="multiple_choice", labels=b"D")
    assert question.answer == 4


@pytest.mark.parametrize("labels", [b"1\n2\n", b"1\n2\n3\n1\n", b"", b"1"])
def test_another_number_of_labels_than_rows_is_refused(
    load: Load, line: Line, labels: bytes
) -> None:
    problems = load.problems(line(label=...) * 3, labels=labels)
    assert {problem.path for problem in problems} <= {"labels", "labels.lines[1]"}


def test_a_bad_label_is_told_by_its_row(load: Load, line: Line) -> None:
    problem = load.problem(line(label=...) * 2, labels=b"1\n4\n")
    assert (problem.line, problem.field) == (2, "label")


def test_an_empty_line_among_labels_is_refused(load: Load, line: Line) -> None:
    problem = load.problem(line(label=...) * 3, labels=b"1\n\n2\n")
    assert (problem.path, "empty" in problem.message) == ("labels.lines[2]", True)


def test_labels_that_are_no_utf_8_are_refused(load: Load, line: Line) -> None:
    problem = load.problem(line(label=...), labels=b"1\n\xff\n")
    assert (problem.path, "UTF-8" in problem.message) == ("labels.lines[2]", True)


def test_labels_inside_and_outside_are_refused(load: Load, line: Line) -> None:
    problem = load.problem(line(), labels=b"2\n")
    assert (problem.field, "leave out one" in problem.message) == ("label", True)
    table = "context,question,answerA,answerB,answerC,label\na,b,c,d,e,1\n"
    assert load.problem(table, Format.CSV, labels=b"1").field == "label"


def test_the_published_pair_gives_the_same_questions(load: Load, published: Published) -> None:
    inside = published.questions.read_text("utf-8").splitlines()
    labels = b"".join(line[-3:-2].encode() + b"\n" for line in inside)
    without = "\n".join(line[: line.index(', "label"')] + "}" for line in inside)
    assert load.questions(without, labels=labels) == load.questions("\n".join(inside))

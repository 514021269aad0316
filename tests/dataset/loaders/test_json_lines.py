from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from evalpool_dataset.loaders import Limits
from evalpool_dataset.question import Question

Load = Any
Line = Callable[..., str]


def test_rows_become_questions_in_order(load: Load, line: Line) -> None:
    questions = load.questions(line() + line(context="", label="3"))
    assert questions == (
        Question(1, "Zoë didn't wait.", "Why?", ("late", "tired", "shy"), 2),
        Question(2, "", "Why?", ("late", "tired", "shy"), 3),
    )


def test_blank_lines_line_ends_of_windows_and_a_byte_order_mark_are_no_matter(
    load: Load, line: Line
) -> None:
    content = "\ufeff" + line() + "\n  \r\n" + line().replace("\n", "\r\n")
    assert len(load.questions(content)) == 2
    assert load.problem(content + line(label="4")).line == 5


def test_a_last_line_without_an_end_is_read(load: Load, line: Line) -> None:
    assert len(load.questions(line() + line().rstrip("\n"))) == 2


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff", "   "])
def test_a_file_without_questions_is_refused(load: Load, content: str) -> None:
    problem = load.problem(content)
    assert (problem.line, problem.path) == (0, "file")
    assert "at least one" in problem.message


def test_bytes_that_are_no_utf_8_are_told_by_line_and_offset(load: Load, line: Line) -> None:
    first = line().encode()
    content = first + b'{"context": "caf\xe9"}\n' + first
    problem = load.problem(content)
    assert problem.line == 2
    assert f"0xe9 at offset {content.index(0xE9)} of the file" in problem.message


def test_the_offset_counts_a_byte_order_mark(load: Load) -> None:
    assert "at offset 4 of" in load.problem(b"\xef\xbb\xbf{\xff").message


def test_every_bad_row_is_told_and_nothing_is_kept(load: Load, line: Line) -> None:
    content = line() + line(label="4") + "nonsense\n" + line(question=" ") + line()
    assert [(p.line, p.field) for p in load.problems(content)] == [
        (2, "label"),
        (3, ""),
        (4, "question"),
    ]


def test_of_many_problems_the_first_hundred_are_told_and_all_are_counted(
    load: Load, line: Line
) -> None:
    result = load(line(label="9") * 250)
    assert [problem.line for problem in result.told] == list(range(1, 101))
    assert (result.count, result.read_to_end) == (250, True)
    assert "250 problems" in result.summary


def test_a_line_of_50_megabytes_is_refused_with_its_number_and_the_limit(
    load: Load, line: Line
) -> None:
    content = (line() + '{"context": "').encode() + b"x" * 50_000_000
    result = load(content, chunk=1 << 20)
    assert [problem.line for problem in result.told] == [2]
    assert f"longer than {1 << 20} bytes" in result.told[0].message
    assert not result.read_to_end


def test_a_line_of_the_very_limit_is_read(load: Load, line: Line) -> None:
    size = len(line().encode()) - 1
    assert load.questions(line() * 2, limits=Limits(line_bytes=size))
    assert load.problem(line(), limits=Limits(line_bytes=size - 1)).line == 1


def test_a_field_that_comes_twice_is_refused(load: Load, line: Line) -> None:
    content = line().replace('"label": "2"', '"label": "1", "label": "2"')
    problem = load.problem(content)
    assert (problem.field, "twice" in problem.message) == ("label", True)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[1, 2]", "an array, not an object"),
        ("null", "null, not an object"),
        ("true", "a truth value, not an object"),
        ("7", "a number, not an object"),
        ('"a"', "a text, not an object"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": -Infinity}', "-Infinity is no JSON"),
        ('{"a": 1', "this is no JSON"),
        ("{'a': 1}", "this is no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"label": ' + "9" * 5000 + "}", "a number cannot be read"),
    ],
)
def test_what_is_no_json_object_is_told(load: Load, content: str, told: str) -> None:
    assert told in load.problem(content).message


def test_text_that_looks_like_code_is_kept_letter_by_letter(load: Load, line: Line) -> None:
    text = "'); DROP TABLE datasets; -- \\ \" \u2028 😀 ’"
    assert load.questions(line(context=text))[0].context == text


def test_escaped_characters_are_read(load: Load, row: Callable[..., dict[str, object]]) -> None:
    assert load.questions(json.dumps(row()))[0].context == "Zoë didn't wait."

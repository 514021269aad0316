from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_dataset.loaders import Format, Limits
from evalpool_dataset.loaders.json_array import JsonArrayReader
from evalpool_dataset.loaders.problems import RowProblem
from evalpool_dataset.loaders.reading import Row

Load = Any
ARRAY = Format.JSON_ARRAY


def test_the_seeds_form_is_read(load: Load, line: Callable[..., str]) -> None:
    rows = [line(label=..., result="1"), line(label=..., result="3")]
    questions = load.questions("[\n" + ",\n".join(rows) + "]\n", ARRAY)
    assert [question.answer for question in questions] == [1, 3]


def test_brackets_and_quotes_within_texts_do_not_cut_rows(
    load: Load, line: Callable[..., str]
) -> None:
    text = 'a ] } , [ { " \\" \\ end'
    questions = load.questions(f"[{line(context=text)},{line()}]", ARRAY)
    assert [question.context for question in questions] == [text, "Zoë didn't wait."]


def test_a_bad_row_is_told_by_the_line_where_it_begins(
    load: Load, line: Callable[..., str]
) -> None:
    good = line().rstrip()
    content = f"\n[\n{good},\n{good.replace(',', ',' + chr(10))}, \n\n 7 , {line(label='x')}]"
    # The second row takes six lines, 4 to 9.
    assert [(p.line, p.field) for p in load.problems(content, ARRAY)] == [(11, ""), (11, "label")]


@pytest.mark.parametrize("content", ["", " \n", "\ufeff "])
def test_an_empty_file_is_refused(load: Load, content: str) -> None:
    assert "empty" in load.problem(content, ARRAY).message


def test_an_empty_array_has_no_questions(load: Load) -> None:
    assert "at least one" in load.problem("[ ]", ARRAY).message


def test_json_lines_are_told_from_an_array(load: Load, line: Callable[..., str]) -> None:
    problem = load.problem("\n" + line(), ARRAY)
    assert problem.line == 2
    assert "JSON Lines" in problem.message


@pytest.mark.parametrize("cut", [1, 5, 30, -1])
def test_a_file_that_is_cut_off_is_refused(load: Load, line: Callable[..., str], cut: int) -> None:
    content = f"[{line().rstrip()}]"
    assert "cut off" in load.problem(content[:cut], ARRAY).message


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("[{row},]", "a row is missing"),
        ("[,{row}]", "a row is missing"),
        ("[{row}] {row}", "after the array's end"),
        ("[{row}]]", "after the array's end"),
    ],
)
def test_an_array_with_stray_marks_is_refused(
    load: Load, line: Callable[..., str], pattern: str, told: str
) -> None:
    assert told in load.problem(pattern.replace("{row}", line().strip()), ARRAY).message


def test_mismatched_brackets_are_refused(load: Load) -> None:
    assert load.problems('[{"context": "a"]]', ARRAY)


def test_a_row_beyond_the_limit_stops_the_reading(load: Load, line: Callable[..., str]) -> None:
    content = f"[\n{line()},\n" + '{"context": "' + "x" * 2000
    result = load(content, ARRAY, limits=Limits(line_bytes=1000), chunk=100)
    assert [(p.line, "1000 bytes" in p.message) for p in result.told] == [(4, True)]
    assert not result.read_to_end


def test_white_space_of_any_length_is_no_matter(load: Load, line: Callable[..., str]) -> None:
    content = " " * 5000 + "[" + " " * 5000 + line() + " " * 5000 + "]" + "\n" * 5000
    assert load.questions(content, ARRAY, limits=Limits(line_bytes=6000), chunk=999)


def test_bytes_that_are_no_utf_8_are_told_by_offset(load: Load) -> None:
    content = b'[\n {"context": "caf\xe9"}]'
    problem = load.problem(content, ARRAY)
    assert problem.line == 2
    assert f"offset {content.index(0xE9)} of" in problem.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(alphabet='ab"\\[]{}, \n😀'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=3), json_values, max_size=3)),
    st.integers(1, 7),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
def test_any_array_is_cut_into_its_objects(
    rows: list[dict[str, object]], chunk: int, indent: int | None, ascii_only: bool
) -> None:
    content = json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode()
    reader = JsonArrayReader(Limits())
    found: list[Row | RowProblem] = []
    for start in range(0, len(content), chunk):
        found += reader.feed(content[start : start + chunk])
    found += reader.finish()
    assert [row.values for row in found if isinstance(row, Row)] == rows
    for row in found:
        below = content.decode().split("\n")[row.line - 1].lstrip("[, ")
        assert below.startswith("{")

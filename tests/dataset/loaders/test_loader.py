from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_dataset.loaders import (
    Format,
    Limits,
    LoadedQuestions,
    LoadProblems,
    QuestionLoader,
    RowProblem,
)
from evalpool_dataset.parts import SIQA
from evalpool_dataset.question import Question
from tests.published import Published

Load = Any
FORM = SIQA.parts(SIQA.defaults).loader


def as_format(rows: list[dict[str, str]], format: Format) -> bytes:
    match format:
        case Format.JSON_LINES:
            return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        case Format.JSON_ARRAY:
            return json.dumps(rows, indent=1).encode()
        case Format.CSV:
            written = io.StringIO()
            writer = csv.DictWriter(written, rows[0])
            writer.writeheader()
            writer.writerows(rows)
            return written.getvalue().encode()
        case Format.PARQUET:
            table = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows), table)
            return table.getvalue()


def test_published_questions_load_whole_and_with_their_apostrophes(
    load: Load, published: Published
) -> None:
    questions = load.questions(published.questions.read_bytes(), chunk=4096)
    assert len(questions) == published.count
    rows = [" ".join([q.context, q.question, *q.choices]) for q in questions]
    assert sum("'" in row for row in rows) == published.with_apostrophes
    assert [[q.context, q.question, *q.choices, str(q.answer)] for q in questions] == [
        list(row.values()) for row in published.rows()
    ]


def test_the_seeds_form_loads_as_the_same_questions(load: Load, published: Published) -> None:
    seed = load.questions(published.as_the_seed_loads_it(), Format.JSON_ARRAY, chunk=777)
    assert len(seed) == published.seed_count
    assert seed == load.questions(published.questions.read_bytes())[: published.seed_count]


def test_every_form_of_the_file_gives_the_same_version(load: Load, published: Published) -> None:
    rows = published.rows()
    versions = {
        SIQA.version(SIQA.defaults, load.questions(as_format(rows, format), format))
        for format in Format
    }
    assert len(versions) == 1


texts = st.text(alphabet="aé😀'\",\n\\ []{}", min_size=1).filter(str.strip)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "context": texts | st.just(""),
            "question": texts,
            "answerA": texts,
            "answerB": texts,
            "answerC": texts,
            "label": st.sampled_from(["1", "2", "3", "A", "4", ""]),
        }
    ),
    min_size=1,
    max_size=5,
)


@given(rows, st.sampled_from(Format), st.data())
def test_how_the_bytes_are_cut_makes_no_difference(
    rows: list[dict[str, str]], format: Format, data: st.DataObject
) -> None:
    content = as_format(rows, format)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
    whole, parts = (QuestionLoader(format, FORM) for _ in range(2))
    whole.feed(content)
    for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        parts.feed(content[start:end])
    expected = whole.finish()
    assert parts.finish() == expected
    good = all(row["label"] in {"1", "2", "3", "A"} for row in rows)
    assert isinstance(expected, LoadedQuestions if good else LoadProblems)


@given(st.binary(), st.sampled_from(Format), st.none() | st.binary(max_size=9))
def test_no_bytes_at_all_break_a_loader(
    content: bytes, format: Format, labels: bytes | None
) -> None:
    loader = QuestionLoader(format, FORM, labels=labels)
    loader.feed(content)
    assert isinstance(loader.finish(), LoadProblems)


def test_the_files_digest_and_size_are_told(load: Load, line: Callable[..., str]) -> None:
    content = (line() * 3).encode()
    loaded = load(content, chunk=10)
    assert loaded.sha256 == hashlib.sha256(content).hexdigest()
    assert loaded.size_bytes == len(content)


@pytest.mark.parametrize("format", Format)
def test_a_file_beyond_the_limit_stops_the_reading(load: Load, format: Format) -> None:
    result = load(b"[" + b" " * 2000, format, limits=Limits(file_bytes=1000), chunk=100)
    assert "larger than 1000 bytes" in result.told[0].message
    assert not result.read_to_end
    assert "not read to its end" in result.summary


def test_more_questions_than_the_limit_stop_the_reading(
    load: Load, line: Callable[..., str]
) -> None:
    assert len(load.questions(line() * 5, limits=Limits(questions=5))) == 5
    result = load(line() * 6, limits=Limits(questions=5))
    assert "more than 5 questions" in result.told[0].message


def test_after_a_stop_bytes_are_passed_over() -> None:
    loader = QuestionLoader(Format.JSON_LINES, FORM, limits=Limits(line_bytes=10))
    assert not loader.stopped
    loader.feed(b"x" * 11)
    assert loader.stopped
    loader.feed(b"more\n" * 99)
    result = loader.finish()
    assert isinstance(result, LoadProblems)
    assert result.count == 1


def test_a_finished_loader_takes_nothing_more(line: Callable[..., str]) -> None:
    loader = QuestionLoader(Format.JSON_LINES, FORM)
    loader.feed(line().encode())
    assert isinstance(loader.finish(), LoadedQuestions)
    with pytest.raises(RuntimeError):
        loader.feed(b"")
    with pytest.raises(RuntimeError):
        loader.finish()


def test_the_same_question_may_come_twice(load: Load, line: Callable[..., str]) -> None:
    one, two = load.questions(line() * 2)
    assert (one.ordinal, two.ordinal) == (1, 2)
    assert isinstance(one, Question)


@pytest.mark.parametrize(
    ("problem", "path", "shown"),
    [
        (RowProblem(3, "label", "bad; fix"), "lines[3].label", "line 3, label: bad; fix"),
        (RowProblem(3, "", "bad; fix"), "lines[3]", "line 3: bad; fix"),
        (RowProblem(0, "", "bad; fix"), "file", "the file: bad; fix"),
        (RowProblem(0, "label", "bad; fix"), "file.label", "the file, label: bad; fix"),
        (RowProblem(2, "x", "bad; fix", unit="row"), "rows[2].x", "row 2, x: bad; fix"),
        (
            RowProblem(2, "", "bad; fix", file="labels"),
            "labels.lines[2]",
            "labels, line 2: bad; fix",
        ),
    ],
)
def test_a_problem_is_told_with_its_place(problem: RowProblem, path: str, shown: str) -> None:
    assert (problem.path, str(problem)) == (path, shown)

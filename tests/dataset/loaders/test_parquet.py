from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evalpool_dataset.loaders import Format, Limits, QuestionLoader
from evalpool_dataset.parts import SIQA

Load = Any
Row = Callable[..., dict[str, object]]
PARQUET = Format.PARQUET


def parquet(rows: list[dict[str, object]], **options: object) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), written, **options)  # type: ignore[arg-type]
    return written.getvalue()


def test_rows_become_questions_in_order(load: Load, row: Row) -> None:
    content = parquet([row(label=str(n % 3 + 1)) for n in range(3000)], row_group_size=700)
    questions = load.questions(content, PARQUET, chunk=5000)
    assert [question.answer for question in questions] == [n % 3 + 1 for n in range(3000)]
    assert questions[-1].ordinal == 3000


def test_whole_numbers_and_lists_are_read(load: Load) -> None:
    content = parquet([{"question": "Why?", "choices": ["a", "b"], "answer_index": 1}])
    (question,) = load.questions(content, PARQUET, kind="multiple_choice")
    assert (question.choices, question.answer) == (("a", "b"), 2)


def test_a_bad_row_is_told_by_its_number(load: Load, row: Row) -> None:
    problem = load.problem(parquet([row(), row(question=None), row()]), PARQUET)
    assert (problem.line, problem.field, problem.path) == (2, "question", "rows[2].question")


def test_wrong_columns_are_told_once(load: Load, row: Row) -> None:
    problems = load.problems(parquet([row(label=..., lable="1")] * 5), PARQUET)
    assert {problem.field for problem in problems} == {"label", "lable"}


@pytest.mark.parametrize("cut", [0, 3, 100, -1])
def test_a_file_that_is_no_parquet_is_refused(load: Load, row: Row, cut: int) -> None:
    assert "no readable Parquet" in load.problem(parquet([row()] * 99)[:cut], PARQUET).message


def test_damaged_pages_are_refused(load: Load, row: Row) -> None:
    content = bytearray(parquet([row()] * 99))
    content[4:200] = b"\xff" * 196
    assert "no readable Parquet" in load.problem(bytes(content), PARQUET).message


def test_a_table_without_rows_has_no_questions(load: Load, row: Row) -> None:
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row()]).slice(0, 0), content)
    assert "at least one" in load.problem(content.getvalue(), PARQUET).message


def test_a_small_file_that_decodes_to_a_large_one_is_refused(load: Load, row: Row) -> None:
    # One long text, stored once and meant in every row.
    content = parquet([row(context="x" * 10_000)] * 2000)
    assert len(content) < 100_000
    result = load(content, PARQUET, limits=Limits(file_bytes=1_000_000))
    assert "decoded file is larger than 1000000" in result.told[0].message


def test_a_column_that_decodes_beyond_the_limit_is_refused_before_it_is_decoded(
    load: Load, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("the file was decoded")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", decode)
    rows = [row(context=f"{n}" + "x" * 10_000) for n in range(200)]
    content = parquet(rows, compression="zstd", use_dictionary=False)
    assert len(content) < 100_000
    result = load(content, PARQUET, limits=Limits(file_bytes=1_000_000))
    assert "decoded file is larger" in result.told[0].message


def test_a_loader_that_is_left_drops_its_file(row: Row) -> None:
    # An open temporary file would warn when it is collected, and warnings fail the tests.
    with QuestionLoader(PARQUET, SIQA.parts(SIQA.defaults).loader) as loader:
        loader.feed(b"x" * (9 << 20))

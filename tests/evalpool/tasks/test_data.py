"""Local rows, in every form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from evalpool.tasks import TaskError, read_splits
from tests.evalpool.tasks.lm_eval_files import task

TASK = task("social_iqa")
ROWS = [{"text": 'é, "so"', "n": 1}, {"text": "b", "n": 2}]


def file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS) + "\n"),
        ("a.json", json.dumps(ROWS, indent=1)),
        ("b.json", "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)),
        ("a.csv", '\ufefftext,n\n"é, ""so""",1\nb,2\n'),
    ],
)
def test_each_form_gives_the_same_rows(tmp_path: Path, name: str, text: str) -> None:
    assert read_splits(TASK, {"test": [file(tmp_path, name, text)]}) == {"test": ROWS}


def test_parquet_gives_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert read_splits(TASK, {"test": [path]}) == {"test": ROWS}


def test_files_that_are_given_go_before_those_that_the_task_names(tmp_path: Path) -> None:
    one = file(tmp_path, "one.jsonl", '{"n": 1}\n')
    two = file(tmp_path, "two.jsonl", '{"m": 2}\n')
    local = replace(TASK, data_files={"train": (str(one),), "test": (str(one), str(two))})
    assert read_splits(local, {"train": [two]}) == {
        "train": [{"m": 2}],
        "test": [{"n": 1, "m": None}, {"n": None, "m": 2}],
    }


def test_a_csv_column_of_numbers_has_numbers(tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", "i,f,t\n1,0.5,1\n2,1,x\n,,\n")
    assert read_splits(TASK, {"test": [path]})["test"] == [
        {"i": 1, "f": 0.5, "t": "1"},
        {"i": 2, "f": 1.0, "t": "x"},
        {"i": None, "f": None, "t": ""},
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", r"a\.txt: its ending is none of \.jsonl"),
        ("a.jsonl", "{", r"a\.jsonl: it cannot be read"),
        ("a.json", "[1, 2]", r"a\.json: it holds no rows"),
        ("a.parquet", "x", r"a\.parquet: it cannot be read"),
    ],
)
def test_a_file_that_holds_no_rows_is_named(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        read_splits(TASK, {"test": [file(tmp_path, name, text)]})


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"gone\.jsonl: it cannot be read"):
        read_splits(TASK, {"test": [tmp_path / "gone.jsonl"]})

"""Rows through the library `datasets`, which a double stands for: it is no dependency.

`benchmarks/peers/lm_eval_prompts.py` runs where the real one is.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from evalpool.tasks import TaskError, read_splits, read_task
from tests.evalpool.tasks.lm_eval_files import task

ROWS = {"train": [{"a": 1}], "validation": [{"a": 2}, {"a": 3}], "extra": [{"a": 4}]}


class Library(ModuleType):
    """Remembers what it was asked for, and gives rows, or fails."""

    def __init__(self) -> None:
        super().__init__("datasets")
        self.asked: list[tuple[tuple[object, ...], dict[str, object]]] = []
        self.failure: Exception | None = None

    def load_dataset(self, *names: object, **kwargs: object) -> dict[str, list[dict[str, int]]]:
        self.asked.append((names, kwargs))
        if self.failure:
            raise self.failure
        return ROWS


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    double = Library()
    monkeypatch.setitem(sys.modules, "datasets", double)
    monkeypatch.setitem(os.environ, "HF_DATASETS_TRUST_REMOTE_CODE", "1")
    return double


def on_hub(folder: Path, **changes: Any) -> Path:
    path = folder / "task.yaml"
    fields = {
        "dataset_path": "somebody/riddles",
        "validation_split": "validation",
        "doc_to_text": "a",
        "doc_to_target": "a",
    }
    path.write_text(yaml.safe_dump(fields | changes))
    return path


def test_the_splits_that_a_task_needs_are_loaded(library: Library) -> None:
    shots = replace(task("social_iqa").shots, number=1)
    assert read_splits(task("social_iqa"), {}) == {"validation": ROWS["validation"]}
    given = read_splits(replace(task("social_iqa"), shots=shots), {})
    assert given == {"validation": ROWS["validation"], "train": ROWS["train"]}
    assert library.asked[0] == (("lighteval/siqa", None), {})


def test_the_library_is_asked_as_the_task_says_and_runs_no_python_of_the_hub(
    tmp_path: Path, library: Library
) -> None:
    kwargs = {"revision": "r1", "data_dir": "d", "trust_remote_code": True}
    path = on_hub(tmp_path, dataset_name="hard", dataset_kwargs=kwargs)
    read_splits(read_task(path), {})
    asked = (("somebody/riddles", "hard"), {"revision": "r1", "data_dir": "d"})
    assert library.asked == [asked]
    assert os.environ["HF_DATASETS_TRUST_REMOTE_CODE"] == "0"


def test_files_at_an_address_are_the_librarys(tmp_path: Path, library: Library) -> None:
    files = {"data_files": {"validation": "hf://datasets/somebody/riddles/dev.jsonl"}}
    path = on_hub(tmp_path, dataset_path="json", dataset_kwargs=files)
    assert read_splits(read_task(path), {}) == {"validation": ROWS["validation"]}
    assert library.asked == [(("json", None), files)]


def test_files_that_are_given_go_before_the_hub(tmp_path: Path, library: Library) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 9}\n')
    assert read_splits(task("social_iqa"), {"validation": [path]}) == {"validation": [{"a": 9}]}
    assert library.asked == []


def test_what_the_library_cannot_load_is_told(library: Library) -> None:
    library.failure = ConnectionError("no route")
    message = "the library datasets cannot load lighteval/siqa: no route; .* --data validation=FILE"
    with pytest.raises(TaskError, match=message):
        read_splits(task("social_iqa"), {})


def test_without_the_library_rows_must_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = "dataset_path: lighteval/siqa is no local file; .* --data validation=FILE, or install"
    with pytest.raises(TaskError, match=message):
        read_splits(task("social_iqa"), {})


def test_what_else_the_library_might_do_is_refused(tmp_path: Path) -> None:
    path = on_hub(tmp_path, dataset_kwargs={"cache_dir": "/"})
    with pytest.raises(TaskError, match=r"dataset_kwargs\.cache_dir: it is not done here"):
        read_task(path)

"""YAML of task files, and what of it is too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalpool.tasks import TaskError
from evalpool.tasks.yaml_file import Function, read_yaml


def written(folder: Path, text: str, name: str = "task.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_what_is_included_first_is_overlaid(tmp_path: Path) -> None:
    written(tmp_path, "a: 1\nb: 1\nc: 1\n", "one")
    written(tmp_path, "b: 2\nc: 2\n", "two")
    assert read_yaml(written(tmp_path, "include: [one, two]\nc: 3\n")) == {"a": 1, "b": 2, "c": 3}


def test_a_function_is_noted_and_not_run(tmp_path: Path) -> None:
    read = read_yaml(written(tmp_path, "f: !function tools.text.make\n"))
    assert read == {"f": Function("tools.text.make", tmp_path / "tools" / "text.py")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"task\.yaml: it is no YAML"),
        ("a: 2021-02-30\n", r"task\.yaml: it is no YAML: day"),
        ("- one\n- two\n", r"task\.yaml: it has no fields"),
        ("", r"task\.yaml: it has no fields"),
        ("1: a\n", r"task\.yaml: it has no fields"),
        ("a: !!python/object:os.system x\n", r"task\.yaml: it is no YAML"),
        ("a: " + "[" * 3000 + "]" * 3000, r"task\.yaml: it is nested too deeply"),
        ("a: &a {b: 1}\nc: {<<: [*a, *a]}\n", "<<: merge keys are not read"),
        ("a: !function [x]\n", "!function: it names no function"),
        ("include: {a: b}\n", "include: it names no files"),
        ("include: task.yaml\n", r"include: task\.yaml includes itself"),
        ("#" * (1 << 20) + "\na: b\n", r"task\.yaml: it is larger than 1 MiB"),
    ],
)
def test_what_is_no_task_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        read_yaml(written(tmp_path, text))


def test_many_includes_are_refused(tmp_path: Path) -> None:
    # Each file includes the next one twice.
    for number in range(40):
        written(tmp_path, f"include: [file{number + 1}, file{number + 1}]\na: 1\n", f"file{number}")
    written(tmp_path, "a: 1\n", "file40")
    with pytest.raises(TaskError, match="include: more than 100 files are included"):
        read_yaml(tmp_path / "file0")

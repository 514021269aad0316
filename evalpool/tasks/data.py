"""Reading the rows that a task asks: files in JSON, JSON Lines, CSV or Parquet, or the hub."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalpool.tasks.errors import TaskError
from evalpool.tasks.hub import hub_splits
from evalpool.tasks.task_file import TaskFile


def read_splits(
    task: TaskFile, given: Mapping[str, Sequence[Path]]
) -> dict[str, list[dict[str, Any]]]:
    """The rows of each split.

    Args:
        task: Names files where its `dataset_path` is json, csv or parquet.
        given: Files by split; they go before those that the task names, and before the hub.

    Raises:
        TaskError: There are no rows to be had, or a file cannot be read.
    """
    named = {split: [Path(file) for file in files] for split, files in task.data_files.items()}
    files = named | {split: list(paths) for split, paths in given.items()}
    if not files:
        loaded = hub_splits(task) if task.hub else None
        if loaded is None:
            raise TaskError(
                f"dataset_path: {task.dataset} is no local file; give the rows of its splits, as "
                f"in --data {task.split}=FILE, or install the library datasets"
            )
        return loaded
    return {split: _whole(paths) for split, paths in files.items()}


def _whole(paths: Sequence[Path]) -> list[dict[str, Any]]:
    rows = [row for path in paths for row in _read(path)]
    # A row without a column has it as null, as in the library `datasets`.
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]


def _read(path: Path) -> list[dict[str, Any]]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise TaskError(f"{path.name}: its ending is none of {', '.join(_READERS)}")
    try:
        rows = reader(path)
    except (OSError, ValueError) as error:
        raise TaskError(f"{path.name}: it cannot be read: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TaskError(f"{path.name}: it holds no rows; give one object a row")
    return rows


def _json_lines(path: Path) -> Any:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _json(path: Path) -> Any:
    text = path.read_text(encoding="utf-8-sig")
    return json.loads(text) if text.lstrip().startswith("[") else _json_lines(path)


def _csv(path: Path) -> Any:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        for kind in (int, float):
            try:
                typed = [None if value in ("", None) else kind(value) for value in values]
            except ValueError:
                continue
            for row, value in zip(rows, typed, strict=True):
                row[name] = value
            break
    return rows


def _parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise TaskError(
            f"{path.name}: Parquet needs pyarrow, which comes with evalpool[dataset]"
        ) from error
    return pyarrow.parquet.read_table(path).to_pylist()


_READERS: Mapping[str, Callable[[Path], Any]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}

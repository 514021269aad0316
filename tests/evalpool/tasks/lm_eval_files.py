"""What lm-evaluation-harness makes of its own tasks, on a few rows each.

`benchmarks/peers/lm_eval_prompts.py` writes it anew; the rows and the replies are made up in the
form of the data sets.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evalpool.tasks import TaskFile, read_task

FOLDER = Path(__file__).parent / "lm_eval"
PROMPTS: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "prompts.json").read_text())
WRITTEN: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "written.json").read_text())
SYSTEM_PROMPT = "You are brief."
TASKS = sorted({name.partition("/")[0] for name in PROMPTS})


def task_file(name: str) -> Path:
    """A task's file, as it is in the harness's tree."""
    return next(
        path
        for path in sorted((FOLDER / "tasks" / name).iterdir())
        if path.suffix == ".yaml" and not path.name.startswith("_")
    )


def task(name: str) -> TaskFile:
    """A task of the harness."""
    return read_task(task_file(name))


def rows(name: str) -> dict[str, list[dict[str, Any]]]:
    """The rows that the prompts were made of, by split."""
    found: dict[str, list[dict[str, Any]]] = json.loads(
        (FOLDER / "data" / f"{name}.json").read_text()
    )
    return found

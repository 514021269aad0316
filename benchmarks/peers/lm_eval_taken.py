"""Counts which of lm-evaluation-harness's own task files are taken, and why others are refused.

    .venv/bin/python -m benchmarks.peers.lm_eval_taken FOLDER

FOLDER is the harness's folder of tasks, such as
`.peers/lm-eval/venv/lib/python3.11/site-packages/lm_eval/tasks`. A file is taken if it can be read
and asks for nothing that is not done here; its rows are not looked at. Files of groups, which ask
for nothing themselves, are counted apart.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from evalpool.tasks import TaskError, find_functions, read_task

GROUP = "task: the file is a group"


def refusal(path: Path) -> str | None:
    """Why a file is refused; None where it is taken."""
    try:
        task = read_task(path)
        find_functions(task)
    except TaskError as error:
        return str(error)
    return None


def reason(message: str) -> str:
    """A refusal without what is the one file's own."""
    message = message.split(";")[0]
    message = re.sub(r"^(filter_list|metric_list) \S+?(\.\S+)?:", r"\1\2:", message)
    message = re.sub(r"!function [\w.]+", "!function", message)
    return re.sub(r"'[^']*'|\"[^\"]*\"", "…", message)[:110]


def count(paths: Iterable[Path]) -> tuple[Counter[str], Counter[str]]:
    """Files taken by output type, and reasons of refusals."""
    taken: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for path in paths:
        message = refusal(path)
        if message is None:
            taken["generate_until" if read_task(path).generation else "multiple_choice"] += 1
        else:
            refused[reason(message)] += 1
    return taken, refused


def main(folder: Path) -> None:
    """Print the counts."""
    taken, refused = count(sorted(folder.rglob("*.yaml")))
    groups = sum(number for why, number in refused.items() if why.startswith(GROUP))
    print(f"groups: {groups}")
    print(f"taken: {taken.total()}", dict(taken))
    print(f"refused: {refused.total() - groups}")
    for why, number in refused.most_common():
        print(f"{number:6} {why}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

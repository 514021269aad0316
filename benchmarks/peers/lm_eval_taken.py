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
from dataclasses import dataclass, field
from pathlib import Path

from evalpool.tasks import TaskError, find_functions, read_task

METRICS = ("acc", "acc_norm", "acc_bytes", "exact_match")
GROUP = "task: the file is a group of tasks"


@dataclass(slots=True)
class Counts:
    """Task files by what becomes of them.

    Attributes:
        taken: As they are, by output type.
        by_metric: With one of their metrics chosen.
        refused: By reason.
    """

    taken: Counter[str] = field(default_factory=Counter)
    by_metric: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, path: Path) -> None:
        """Count a file."""
        try:
            self.taken[_output_type(path)] += 1
        except TaskError as error:
            self.refused[_reason(str(error))] += 1
            self.by_metric += any(_is_taken(path, metric) for metric in METRICS)


def _output_type(path: Path, metric: str | None = None) -> str:
    task = read_task(path, metric)
    find_functions(task)
    return "generate_until" if task.generation else "multiple_choice"


def _is_taken(path: Path, metric: str) -> bool:
    try:
        _output_type(path, metric)
    except TaskError:
        return False
    return True


def _reason(message: str) -> str:
    """A refusal without what is the one file's own."""
    message = message.partition(";")[0]
    message = re.sub(r"^(filter_list|metric_list)[ \[][^:]*?(\.\w+)?:", r"\1\2:", message)
    message = re.sub(r"!function [\w.]+", "!function", message)
    return re.sub(r"'[^']*'|\"[^\"]*\"", "…", message)[:100]


def main(folder: Path) -> None:
    """Print the counts."""
    counts = Counts()
    for path in sorted(folder.rglob("*.yaml")):
        counts.add(path)
    groups = counts.refused.pop(GROUP, 0)
    print(f"{counts.taken.total()} taken: {dict(counts.taken)}")
    print(f"{counts.refused.total()} refused, {counts.by_metric} of them taken by one metric")
    print(f"{groups} groups")
    for reason, number in counts.refused.most_common():
        print(f"{number:6} {reason}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

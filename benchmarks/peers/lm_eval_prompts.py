"""Runs in lm-evaluation-harness's own environment: writes the prompts that its tasks make.

FOLDER holds `data/TASK.json`, the rows of each split. The task files and the Python files that they
name are copied from the installed harness to `FOLDER/tasks`, and what it makes of the rows, with no
examples and with two, goes to `FOLDER/prompts.json`; the tests compare ours with it, letter by
letter.

    .peers/lm-eval/venv/bin/python -P benchmarks/peers/lm_eval_prompts.py \
        tests/evalpool/tasks/lm_eval
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import datasets
import lm_eval
from lm_eval.tasks import TaskManager

SHOTS = (0, 2)
SEED = 1234
# Beside the tasks, within the harness's folder of tasks.
FILES = {
    "arc_easy": ("arc/arc_easy.yaml",),
    "boolq": ("super_glue/boolq/default.yaml",),
    "hellaswag": ("hellaswag/hellaswag.yaml", "hellaswag/utils.py"),
    "mmlu_anatomy": ("mmlu/default/mmlu_anatomy.yaml", "mmlu/default/_default_template_yaml"),
    "openbookqa": ("openbookqa/openbookqa.yaml",),
    "piqa": ("piqa/piqa.yaml",),
    "social_iqa": ("siqa/siqa.yaml",),
    "truthfulqa_mc1": ("truthfulqa/truthfulqa_mc1.yaml",),
    "winogrande": ("winogrande/default.yaml", "winogrande/preprocess_winogrande.py"),
}


def prompts_of(task: Any, shots: int) -> list[dict[str, Any]]:
    """What a loaded task asks of each of its rows."""
    task.set_fewshot_seed(SEED)
    asked = []
    for _, row in task.doc_iterator():
        context = task.fewshot_context(row, shots)
        requests = task.construct_requests(row, context)
        right = task.doc_to_text(row) if task.multiple_input else task.doc_to_target(row)
        asked.append(
            {
                "requests": [list(request.arguments) for request in requests],
                "choices": task.doc_to_choice(row),
                "answer": right,
            }
        )
    return asked


def load(manager: TaskManager, name: str, rows: dict[str, list[Any]]) -> Any:
    """A task on these rows, whatever it would load else."""
    splits = {split: datasets.Dataset.from_list(each) for split, each in rows.items()}
    datasets.load_dataset = lambda *_, **__: datasets.DatasetDict(splits)
    loaded = manager.load(name)
    while isinstance(loaded, dict):
        loaded = loaded.get(name) or loaded.get("tasks") or next(iter(loaded.values()))
    return loaded


def main() -> None:
    """Write the prompts of all tasks."""
    folder = Path(sys.argv[1])
    source = Path(lm_eval.__file__).parent / "tasks"
    manager = TaskManager()
    written = {}
    for name, files in FILES.items():
        for file in files:
            copy = folder / "tasks" / name / Path(file).name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, copy)
        rows = json.loads((folder / "data" / f"{name}.json").read_text())
        for shots in SHOTS:
            written[f"{name}/{shots}"] = prompts_of(load(manager, name, rows), shots)
    text = json.dumps(written, indent=1, ensure_ascii=False)
    (folder / "prompts.json").write_text(text + "\n")


if __name__ == "__main__":
    main()

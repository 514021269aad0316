"""Runs in lm-evaluation-harness's own environment: writes what its tasks ask and how they compare.

FOLDER holds `data/TASK.json`, the rows of each split, and `replies.json`, made-up replies to some
of them. The task files and the Python files that they name are copied from the installed harness to
`FOLDER/tasks`. What it makes of the rows goes to `FOLDER/prompts.json`, for tasks with choices, and
to `FOLDER/written.json`, for tasks that are answered freely; what its filters and metrics make of
the replies goes to FILTERS. The tests compare ours with all of it, letter by letter.

    .peers/lm-eval/venv/bin/python -P benchmarks/peers/lm_eval_prompts.py \
        tests/evalpool/tasks/lm_eval tests/dataset/parts/lm_eval_filters.json
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import lm_eval
from lm_eval.tasks import TaskManager

SEED = 1234
SYSTEM_PROMPT = "You are brief."


@dataclass(frozen=True, slots=True)
class Source:
    """A task of the harness.

    Attributes:
        folder: Where its files are, within the harness's folder of tasks.
        files: Their names.
        shots: The numbers of examples that it is written out with.
    """

    folder: str
    files: tuple[str, ...]
    shots: tuple[int, ...] = (0, 2)


CHOSEN = {
    "arc_easy": Source("arc", ("arc_easy.yaml",)),
    "boolq": Source("super_glue/boolq", ("default.yaml",)),
    "global_mmlu_full_de_anatomy": Source(
        "global_mmlu/full/de", ("global_mmlu_full_de_anatomy.yaml", "_de_template_yaml", "utils.py")
    ),
    "hellaswag": Source("hellaswag", ("hellaswag.yaml", "utils.py")),
    "include_base_44_greek_stem": Source(
        "include/default/Greek",
        ("include_base_44_greek_stem.yaml", "_greek_template_yaml", "utils.py"),
    ),
    "mmlu_anatomy": Source("mmlu/default", ("mmlu_anatomy.yaml", "_default_template_yaml")),
    "openbookqa": Source("openbookqa", ("openbookqa.yaml",)),
    "piqa": Source("piqa", ("piqa.yaml",)),
    "social_iqa": Source("siqa", ("siqa.yaml",)),
    "truthfulqa_mc1": Source("truthfulqa", ("truthfulqa_mc1.yaml",)),
    "winogrande": Source("winogrande", ("default.yaml", "preprocess_winogrande.py")),
}
WRITTEN = {
    "bbh_cot_fewshot_date_understanding": Source(
        "bbh/cot_fewshot", ("date_understanding.yaml", "_cot_fewshot_template_yaml"), (0, 3)
    ),
    "gsm8k": Source("gsm8k", ("gsm8k.yaml",), (0, 5)),
    "gsm8k_cot": Source("gsm8k", ("gsm8k-cot.yaml",), (0, 8)),
    "mmlu_flan_n_shot_generative_anatomy": Source(
        "mmlu/flan_n_shot/generative",
        ("mmlu_anatomy.yaml", "_mmlu_flan_generative_template_yaml"),
    ),
    "mmlu_llama_anatomy": Source(
        "llama3/instruct/mmlu", ("mmlu_anatomy.yaml", "_continuation_template_yaml")
    ),
    "nq_open": Source("nq_open", ("nq_open.yaml",)),
    "triviaqa": Source("triviaqa", ("default.yaml",)),
    # Of our own, for what no task above asks for: their files are there already.
    "own_blank": Source("", (), (0, 3)),
    "own_choices": Source("", (), (0, 3)),
    "own_numbers": Source("", (), (0,)),
}


def chosen_prompts(task: Any, shots: int) -> list[dict[str, Any]]:
    """What a task with choices asks of each of its rows."""
    task.set_fewshot_seed(SEED)
    asked = []
    for _, row in task.doc_iterator():
        context = task.fewshot_context(row, shots)
        requests = task.construct_requests(row, context)
        choices = task.doc_to_choice(row)
        right = task.doc_to_text(row) if task.multiple_input else task.doc_to_target(row)
        asked.append(
            {
                "requests": [list(request.arguments) for request in requests],
                "choices": choices,
                "answer": choices.index(right) if isinstance(right, str) else right,
            }
        )
    return asked


def written_prompts(task: Any, shots: int) -> list[dict[str, Any]]:
    """What a task that is answered freely asks of each of its rows, in the ways there are."""
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "system": {"system_instruction": SYSTEM_PROMPT},
        "chat": {"apply_chat_template": True, "chat_template": messages},
        "chat_system": {
            "apply_chat_template": True,
            "chat_template": messages,
            "system_instruction": SYSTEM_PROMPT,
        },
    }
    asked: list[dict[str, Any]] = []
    for way, options in ways.items():
        task.set_fewshot_seed(SEED)
        for place, row in task.doc_iterator():
            prefix = task.doc_to_prefix(row)
            context = task.fewshot_context(row, shots, gen_prefix=prefix, **options)
            request = task.construct_requests(row, context)
            if way == "plain":
                asked.append({"expected": expected(task, row), "kwargs": request.arguments[1]})
            asked[place][way] = request.arguments[0]
    return asked


def expected(task: Any, row: dict[str, Any]) -> list[str]:
    """The replies that are right, as `ConfigurableTask.process_results` has them."""
    target = task.doc_to_target(row)
    if task.config.doc_to_choice is not None:
        return [task.doc_to_choice(row)[target]]
    return target if isinstance(target, list) else [str(target)]


def messages(conversation: list[dict[str, str]], *, add_generation_prompt: bool) -> Any:
    """In place of a chat template: the conversation as it is."""
    return conversation


def filtered(task: Any, replies: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a task's filters take from replies, and whether that is right."""
    rows = [row for _, row in task.doc_iterator()]
    found = []
    for each in replies:
        row = rows[each["row"]]
        request = task.construct_requests(row, "")
        request.resps = [each["reply"]]
        extracted, matches = {}, {}
        for pipeline in task._filters:
            pipeline.apply([request])
            taken = request.filtered_resps[pipeline.name]
            extracted[pipeline.name] = taken
            matches[pipeline.name] = float(task.process_results(row, [taken])["exact_match"])
        found.append(
            {
                "reply": each["reply"],
                "expected": expected(task, row),
                "choices": row.get("choices", []),
                "extracted": extracted,
                "exact_match": matches,
            }
        )
    return found


def load(manager: TaskManager, name: str, rows: dict[str, list[Any]]) -> Any:
    """A task on these rows, whatever it would load else."""
    splits = {split: datasets.Dataset.from_list(each) for split, each in rows.items()}
    datasets.load_dataset = lambda *_, **__: datasets.DatasetDict(splits)
    loaded = manager.load(name)
    while isinstance(loaded, dict):
        loaded = loaded.get(name) or loaded.get("tasks") or next(iter(loaded.values()))
    return loaded


def copy_files(name: str, source: Source, folder: Path) -> None:
    """Copy a task's files out of the harness."""
    tree = Path(lm_eval.__file__).parent / "tasks" / source.folder
    copies = folder / "tasks" / name
    copies.mkdir(parents=True, exist_ok=True)
    for file in source.files:
        shutil.copyfile(tree / file, copies / file)


def write(path: Path, content: object) -> None:
    """Write a document for people's eyes too."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def main(arguments: Sequence[str]) -> None:
    """Write the prompts of all tasks, and what is made of replies."""
    folder, filters = map(Path, arguments)
    manager = TaskManager(include_path=[str(path) for path in folder.glob("tasks/own_*")])
    replies = json.loads((folder / "replies.json").read_text())
    asked: dict[str, dict[str, Any]] = {"prompts": {}, "written": {}}
    compared = {}
    for file, sources, prompts in (
        ("prompts", CHOSEN, chosen_prompts),
        ("written", WRITTEN, written_prompts),
    ):
        for name, source in sources.items():
            copy_files(name, source, folder)
            rows = json.loads((folder / "data" / f"{name}.json").read_text())
            for shots in source.shots:
                asked[file][f"{name}/{shots}"] = prompts(load(manager, name, rows), shots)
            if name in replies:
                compared[name] = filtered(load(manager, name, rows), replies[name])
        write(folder / f"{file}.json", asked[file])
    write(filters, compared)


if __name__ == "__main__":
    main(sys.argv[1:])

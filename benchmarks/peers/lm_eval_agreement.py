"""Compares prompts with lm-evaluation-harness's own, over all of its task files that are taken.

Runs in the harness's environment, which has all that `evalpool.tasks` needs:

    PYTHONPATH=. .peers/lm-eval/venv/bin/python -P benchmarks/peers/lm_eval_agreement.py

The rows are made up: each column that a task's templates name gets a text, a number, a list or an
object, whichever they can be rendered with. Task files whose templates are alike are tried once;
files with a `process_docs`, which take the rows of one data set, are not.
"""

from __future__ import annotations

import logging
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import jinja2
import jinja2.meta
import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from evalpool.tasks import (
    ChoicePrompt,
    TaskError,
    TaskFile,
    find_functions,
    read_task,
    task_prompts,
)

SEED = 1234
ROWS = 5
SHOTS = 2
ATTEMPTS = 150

Row = dict[str, Any]
Asked = list[Any]

_parser = jinja2.Environment(autoescape=False)
_USUAL = {"answer": "number", "choices": "list", "endings": "list", "gold": "number"}


def value(form: str, column: str, place: int) -> Any:
    """A value of a form, for a column of the row at a place."""
    letters = "abcd"
    return {
        "text": f"{column} {place} x",
        "number": place % 2,
        "digit": str(place % 2),
        "letter": "AB"[place % 2],
        "word": ["yes", "no"][place % 2],
        "list": [f"{column}{place}{letter}" for letter in letters],
        "object": {
            "text": [f"t{place}{letter}" for letter in letters],
            "label": list("ABCD"),
            "choices": [f"c{place}{letter}" for letter in letters],
            "labels": [1, 0, 0, 0],
            "aliases": [f"alias {place}", "b"],
            "value": f"v{place}",
        },
    }[form]


FORMS = ("text", "text", "list", "number", "number", "letter", "digit", "object", "word")


def columns(task: TaskFile) -> list[str]:
    """The columns that a task's recipes name."""
    shots = task.shots
    recipes = (task.text, task.target, task.choices, task.prefix, shots.text, shots.target)
    found = {"choices"} if task.generation and task.generation.needs_choices else set()
    for recipe in (*recipes, shots.choices, shots.prefix, task.description):
        if isinstance(recipe, str) and recipe.isidentifier():
            found.add(recipe)
        elif isinstance(recipe, str):
            found |= jinja2.meta.find_undeclared_variables(_parser.parse(recipe))
    return sorted(found)


def rows_for(task: TaskFile) -> list[Row] | None:
    """Rows that a task can ask; None where none were found."""
    chance = random.Random(SEED)
    names = columns(task)
    forms = {name: _USUAL.get(name, "text") for name in names}
    for _ in range(ATTEMPTS):
        rows = [
            {name: value(form, name, place) for name, form in forms.items()}
            for place in range(ROWS)
        ]
        try:
            list(task_prompts(task, splits_of(task, rows)))
        except TaskError:
            forms = {name: chance.choice(FORMS) for name in names}
        else:
            return rows
    return None


def splits_of(task: TaskFile, rows: Sequence[Row]) -> dict[str, Sequence[Row]]:
    """The same rows for every split that a task names."""
    named = (task.training, task.validation, task.test, task.shots.split)
    return {split: rows for split in named if split}


def ours(task: TaskFile, splits: Mapping[str, Sequence[Row]]) -> Asked:
    """What we ask: pairs of context and continuation, or a prompt, a row."""
    asked: Asked = []
    for prompt in task_prompts(task, splits):
        if isinstance(prompt, ChoicePrompt):
            contexts = prompt.prompts
            if len(contexts) == 1:
                contexts *= len(prompt.continuations)
            asked.append(list(zip(contexts, prompt.continuations, strict=True)))
        else:
            asked.append(prompt.prompt)
    return asked


def theirs(path: Path, splits: Mapping[str, Sequence[Row]], shots: int) -> Asked:
    """What the harness asks."""
    given = {split: datasets.Dataset.from_list(list(rows)) for split, rows in splits.items()}
    datasets.load_dataset = lambda *_, **__: datasets.DatasetDict(given)
    task = ConfigurableTask(config=load_yaml(path))
    task.set_fewshot_seed(SEED)
    asked: Asked = []
    for _, row in task.doc_iterator():
        context = task.fewshot_context(row, shots, gen_prefix=task.doc_to_prefix(row))
        requests = task.construct_requests(row, context)
        if isinstance(requests, list):
            asked.append([request.arguments for request in requests])
        else:
            asked.append(requests.arguments[0])
    return asked


def compared(path: Path, task: TaskFile) -> Iterator[str]:
    """What comes of a task, without examples and with some."""
    rows = rows_for(task)
    if rows is None:
        yield "no rows were found that it can ask"
        return
    given = len(task.shots.samples) if task.shots.split is None else 0
    for shots in (0, min(SHOTS, given or SHOTS)):
        with_shots = replace(task, shots=replace(task.shots, number=shots))
        splits = splits_of(task, rows)
        try:
            mine = ours(with_shots, splits)
        except TaskError as error:
            mine = [str(error)]
        try:
            same = mine == theirs(path, splits, shots)
        except Exception as error:
            # What the harness cannot ask it fails with in any way.
            yield f"the harness fails: {type(error).__name__}, and we say: {str(mine[0])[:60]}"
            continue
        if not same:
            print(f"{path} with {shots} examples: {mine}", file=sys.stderr)
        yield "the same" if same else "DIFFERENT"


def main() -> None:
    """Print how many task files give the same."""
    logging.disable(logging.CRITICAL)
    datasets.disable_progress_bars()
    seen: set[str] = set()
    outcomes: Counter[str] = Counter()
    for path in sorted((Path(lm_eval.__file__).parent / "tasks").rglob("*.yaml")):
        try:
            task = read_task(path)
            find_functions(task)
        except TaskError:
            continue
        if task.process or task.shots.process:
            continue
        parts = (task.text, task.target, task.choices, task.prefix, task.target_delimiter)
        form = repr((*parts, task.delimiter, task.description == "", replace(task.shots, number=0)))
        if form not in seen:
            seen.add(form)
            outcomes.update(compared(path, task))
    print(f"{len(seen)} kinds of task files")
    for outcome, number in outcomes.most_common():
        print(f"{number:6} {outcome}")


if __name__ == "__main__":
    main()

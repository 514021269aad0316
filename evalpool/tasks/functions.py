"""The Python functions of lm-evaluation-harness's own tasks that are known here.

A task file may name functions of a Python file beside it. That file is code of whoever wrote it,
and is never run: a function is known by its name and the SHA-256 of its file, and what it does is
written anew here. Agrees with `lm_eval/tasks/hellaswag/utils.py` and
`lm_eval/tasks/winogrande/preprocess_winogrande.py`, release 0.4.13.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from evalpool.tasks.errors import TaskError
from evalpool.tasks.task_file import TaskFile
from evalpool.tasks.yaml_file import Function

Row = Mapping[str, Any]


@lru_cache(maxsize=64)
def known_function(function: Function) -> Callable[[Row], Any]:
    """What a function does with a row.

    Raises:
        TaskError: It is not known, or its file is another one.
    """
    try:
        digest = hashlib.sha256(function.source.read_bytes()).hexdigest()
    except OSError as error:
        raise TaskError(
            f"!function {function.name}: {function.source.name} is not there"
        ) from error
    name = function.name.rpartition(".")[2]
    found = _KNOWN.get((digest, name))
    if found is None:
        raise TaskError(
            f"!function {function.name}: it is not known here, and Python of a task is not run; "
            "write a template instead"
        )
    return found


def find_functions(task: TaskFile) -> None:
    """Find all functions that a task names.

    Raises:
        TaskError: One is not known.
    """
    shots = task.shots
    named = [task.process, task.text, task.target, task.choices]
    if shots.number:
        named += [shots.process, shots.text, shots.target, shots.choices]
    for recipe in named:
        if isinstance(recipe, Function):
            known_function(recipe)


def _hellaswag_row(row: Row) -> dict[str, Any]:
    context = f"{row['ctx_a']} {row['ctx_b'].capitalize()}"
    return {
        **row,
        "query": _without_artefacts(f"{row['activity_label']}: {context}"),
        "choices": [_without_artefacts(ending) for ending in row["endings"]],
        "gold": int(row["label"]),
    }


def _without_artefacts(text: str) -> str:
    # Brackets are artefacts of the WikiHow part.
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _winogrande_text(row: Row) -> int:
    return {"1": 0, "2": 1}[row["answer"]]


def _winogrande_target(row: Row) -> str:
    sentence = str(row["sentence"])
    return sentence[sentence.index("_") + 1 :].strip()


def _winogrande_choices(row: Row) -> list[str]:
    before = row["sentence"][: row["sentence"].index("_")]
    return [before + row["option1"], before + row["option2"]]


_HELLASWAG = "07d23b60b28f2a4f658dcf8440623a63fe6644854ce9b846a114dde980dc1214"
_WINOGRANDE = "e55327629264a98f1d383fda24645b6779afb53fa0bce2150042b9416b1ae006"
_KNOWN: Mapping[tuple[str, str], Callable[[Row], Any]] = {
    (_HELLASWAG, "process_docs"): _hellaswag_row,
    (_WINOGRANDE, "doc_to_text"): _winogrande_text,
    (_WINOGRANDE, "doc_to_target"): _winogrande_target,
    (_WINOGRANDE, "doc_to_choice"): _winogrande_choices,
}

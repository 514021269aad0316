"""The Python functions of lm-evaluation-harness's own tasks that are known here.

A task file may name functions of a Python file beside it. That file is code of whoever wrote it,
and is never run: a function is known by its name and the SHA-256 of its file, and what it does is
written anew here. Agrees with `utils.py` of `lm_eval/tasks/hellaswag`, `lm_eval/tasks/global_mmlu`
and `lm_eval/tasks/include` and with `lm_eval/tasks/winogrande/preprocess_winogrande.py`, release
0.4.13.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from evalpool.tasks.errors import TaskError
from evalpool.tasks.task_file import TaskFile
from evalpool.tasks.yaml_file import Function

Row = Mapping[str, Any]


@lru_cache(maxsize=64)
def known_function(function: Function) -> Callable[[Row], Any]:
    """What a function does with a row; None from one that processes rows: it is left out.

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
    found = _KNOWN.get((digest, name)) or _part(digest, name)
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


def _part(digest: str, name: str) -> Callable[[Row], Any] | None:
    """A function that keeps the rows of one subject, after which it is called."""
    subject = name.removeprefix("process_")
    if digest == _GLOBAL_MMLU and subject not in (name, "docs", "functions"):
        return partial(_if_equal, "subject", subject)
    if digest == _INCLUDE and subject in _INCLUDE_DOMAINS:
        return partial(_if_equal, "domain", _INCLUDE_DOMAINS[subject])
    return None


def _if_equal(column: str, value: str, row: Row) -> Row | None:
    return row if row[column] == value else None


_GLOBAL_MMLU = "b4012dd2b1a508885d23ee2ddb12bc26f3e622081ba41ec1ab766edc31a4982b"
_HELLASWAG = "07d23b60b28f2a4f658dcf8440623a63fe6644854ce9b846a114dde980dc1214"
_INCLUDE = "280dbae55143a4d1be55783551e7d508b01a0d840066e5d5f3b9b6ae40966477"
_INCLUDE_DOMAINS = {
    "applied_science": "Applied Science",
    "arts_humanities": "Arts & Humanities",
    "business_commerce": "Business & Commerce",
    "driving_license": "Driving License",
    "general_knowledge": "General knowledge",
    "health_oriented_education": "Health oriented education",
    "marine_license": "Marine License",
    "medical_license": "Medical License",
    "professional_certification": "Professional certification",
    "social_science": "Social Science",
    "stem": "STEM",
}
_WINOGRANDE = "e55327629264a98f1d383fda24645b6779afb53fa0bce2150042b9416b1ae006"
_KNOWN: Mapping[tuple[str, str], Callable[[Row], Any]] = {
    (_HELLASWAG, "process_docs"): _hellaswag_row,
    (_WINOGRANDE, "doc_to_text"): _winogrande_text,
    (_WINOGRANDE, "doc_to_target"): _winogrande_target,
    (_WINOGRANDE, "doc_to_choice"): _winogrande_choices,
}

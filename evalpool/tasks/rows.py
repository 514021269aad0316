"""What a dataset holds for each question of a task, and what is wrong with such a row.

The kinds are `continuation`, `ending` and `generation`. A row that the service would refuse is told
before anything is sent: the rules are those of its loader.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from evalpool.tasks.prompts import ChoicePrompt, Prompt, WrittenPrompt

_MIN_CHOICES = 2
_MAX_CHOICES = 26
_MAX_EXPECTED = 1000
_MAX_BYTES = 1 << 20


def kind_of(prompt: Prompt) -> str:
    """The kind of dataset that a question belongs to."""
    if isinstance(prompt, WrittenPrompt):
        return "generation"
    return "continuation" if len(prompt.prompts) == 1 else "ending"


def row_of(prompt: Prompt) -> dict[str, object]:
    """A question as a row to be loaded.

    The delimiter between prompt and choice goes to the prompt's end, so that the choices' lengths
    are theirs alone; white space there is tokenised with the choice, as lm-evaluation-harness does.
    """
    if isinstance(prompt, WrittenPrompt):
        return _written(prompt)
    return _chosen(prompt)


def problems_of(row: Mapping[str, object]) -> list[tuple[str, str]]:
    """What the service would refuse in a row, as pairs of field and message."""
    problems = []
    for field, value in row.items():
        if isinstance(value, list):
            problems += _list_problems(field, value)
        elif isinstance(value, str):
            problems += _text_problems(field, value)
    if not problems and len(json.dumps(row, ensure_ascii=False).encode()) > _MAX_BYTES:
        problems.append(("", f"it is longer than {_MAX_BYTES >> 20} MiB"))
    return problems


def _written(prompt: WrittenPrompt) -> dict[str, object]:
    (first, *others) = prompt.expected
    row: dict[str, object] = {"prompt": prompt.prompt}
    row["expected"] = list(prompt.expected) if others else first
    if prompt.choices:
        row["choices"] = list(prompt.choices)
    return row


def _chosen(prompt: ChoicePrompt) -> dict[str, object]:
    if kind_of(prompt) == "ending":
        return {
            "choices": list(prompt.prompts),
            "ending": prompt.continuations[0],
            "answer_index": prompt.answer,
        }
    delimiter = prompt.continuations[0].removesuffix(prompt.choices[0])
    return {
        "prompt": prompt.prompts[0] + delimiter,
        "choices": list(prompt.choices),
        "answer_index": prompt.answer,
    }


def _list_problems(field: str, values: list[object]) -> list[tuple[str, str]]:
    least, most = (1, _MAX_EXPECTED) if field == "expected" else (_MIN_CHOICES, _MAX_CHOICES)
    if not least <= len(values) <= most:
        return [(field, f"it has {len(values)} entries; there are to be {least} to {most}")]
    problems = []
    for place, value in enumerate(values):
        problems += _text_problems(f"{field}[{place}]", str(value))
    return problems


def _text_problems(field: str, text: str) -> list[tuple[str, str]]:
    if not text.strip():
        return [(field, "it is empty")]
    if "\0" in text:
        return [(field, "it has a NUL character")]
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return [(field, "it has half of a surrogate pair")]
    return []

"""Making a prompt, a target and choices of a row, as lm-evaluation-harness does.

Agrees with `ConfigurableTask.doc_to_text`, `doc_to_target` and `doc_to_choice` in
`lm_eval/api/task.py`, and with `apply_template` in `lm_eval/utils.py`, release 0.4.13, but for
Jinja2's sandbox: a template comes from wherever its file does.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from evalpool.tasks.errors import TaskError
from evalpool.tasks.functions import known_function
from evalpool.tasks.task_file import Function, Recipe

Row = Mapping[str, Any]


def _regex_replace(text: str, pattern: str, replacement: str, count: int = 0) -> str:
    return re.sub(pattern, replacement, text, count=count)


_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_environment.filters["regex_replace"] = _regex_replace


def text_of(recipe: Recipe, row: Row, field: str) -> str | int:
    """A prompt; a number where the choices are prompts: the right one's place, from 0.

    Raises:
        TaskError: The recipe fails on the row.
    """
    made = _made(recipe, row, field)
    if isinstance(recipe, str) and recipe not in row and isinstance(made, str) and made.isdigit():
        return int(made)
    if isinstance(made, str | int) and not isinstance(made, bool):
        return made
    raise TaskError(f"{field}: {made!r} is no text")


def target_of(recipe: Recipe, row: Row, field: str) -> str | int | list[Any]:
    """The right choice: its place from 0, itself, or several of either.

    Raises:
        TaskError: The recipe fails on the row.
    """
    made = _made(recipe, row, field)
    if isinstance(recipe, str) and recipe not in row and isinstance(made, str):
        if made.isdigit():
            return int(made)
        if len(made) >= 2 and made[0] == "[" and made[-1] == "]":
            try:
                made = ast.literal_eval(made)
            except (SyntaxError, ValueError):
                return str(made)
    if isinstance(made, str | int | list) and not isinstance(made, bool):
        return made
    raise TaskError(f"{field}: {made!r} is no choice")


def choices_of(recipe: Recipe, row: Row, field: str) -> list[str]:
    """The choices.

    Raises:
        TaskError: The recipe fails on the row.
    """
    made = list(recipe.values()) if isinstance(recipe, dict) else _made(recipe, row, field)
    if isinstance(recipe, str) and recipe not in row:
        try:
            made = ast.literal_eval(str(made))
        except (SyntaxError, ValueError) as error:
            raise TaskError(f"{field}: {made!r} is no list of choices") from error
    if isinstance(made, list | tuple) and all(isinstance(each, str) for each in made):
        return list(made)
    raise TaskError(f"{field}: {made!r} is no list of texts")


def phrase_of(recipe: str, row: Row, field: str) -> str:
    """What a column or a template gives; "" for "".

    Raises:
        TaskError: It fails on the row.
    """
    return str(_made(recipe, row, field)) if recipe else ""


def _made(recipe: Recipe, row: Row, field: str) -> Any:
    if isinstance(recipe, Function):
        return known_function(recipe)(row)
    if not isinstance(recipe, str):
        return recipe
    if recipe in row:
        return row[recipe]
    try:
        return _template(recipe).render(**row)
    except SecurityError as error:
        raise TaskError(f"{field}: the template reaches for what it may not: {error}") from error
    except Exception as error:
        # It computes whatever its writer put into it, so it may fail in any way.
        raise TaskError(f"{field}: the template fails: {error}") from error


@lru_cache(maxsize=64)
def _template(text: str) -> Template:
    return _environment.from_string(text)

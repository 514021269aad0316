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
from evalpool.tasks.fields import Recipe, shown
from evalpool.tasks.functions import known_function
from evalpool.tasks.yaml_file import Function

Row = Mapping[str, Any]


def _regex_replace(text: str, pattern: str, replacement: str, count: int = 0) -> str:
    return re.sub(pattern, replacement, text, count=count)


_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_environment.filters["regex_replace"] = _regex_replace


def text_of(recipe: Recipe, row: Row, field: str, *, places: bool = True) -> str | int:
    """A prompt; a number where the choices are prompts: the right one's place, from 0.

    Args:
        recipe: How it is made.
        row: Of what.
        field: Its name in the file, for messages.
        places: Digits that a template gives are a place among choices, which the task has.

    Raises:
        TaskError: The recipe fails on the row.
    """
    made = _made(recipe, row, field)
    if places and _is_template(recipe, row) and isinstance(made, str) and made.isdigit():
        return int(made)
    if isinstance(made, str) or (places and _is_integer(made)):
        return made  # type: ignore[no-any-return]
    raise TaskError(f"{field}: {shown(made)} is no text")


def target_of(
    recipe: Recipe, row: Row, field: str, *, places: bool = True
) -> str | int | list[Any]:
    """The right choice: its place from 0, itself, or several of either.

    Args:
        recipe: How it is made.
        row: Of what.
        field: Its name in the file, for messages.
        places: As in `text_of`.

    Raises:
        TaskError: The recipe fails on the row.
    """
    made = _target(recipe, row, field, places=places)
    if isinstance(made, str | list) or _is_integer(made):
        return made  # type: ignore[no-any-return]
    raise TaskError(f"{field}: {shown(made)} is no choice")


def expected_of(recipe: Recipe, row: Row, field: str) -> list[str]:
    """The replies that are right, where there are no choices.

    Raises:
        TaskError: The recipe fails on the row.
    """
    made = _target(recipe, row, field, places=False)
    if isinstance(made, list | tuple) and made and all(isinstance(each, str) for each in made):
        return list(made)
    if made is None or isinstance(made, list | tuple | dict):
        raise TaskError(f"{field}: {shown(made)} is neither a text nor a list of texts")
    # Of a column of numbers what stands there is compared, as text.
    return [str(made)]


def _target(recipe: Recipe, row: Row, field: str, *, places: bool) -> Any:
    made = _made(recipe, row, field)
    if not (_is_template(recipe, row) and isinstance(made, str)):
        return made
    if places and made.isdigit():
        return int(made)
    if len(made) >= 2 and made[0] == "[" and made[-1] == "]":
        try:
            return ast.literal_eval(made)
        except (SyntaxError, ValueError):
            return made
    return made


def _is_template(recipe: Recipe, row: Row) -> bool:
    return isinstance(recipe, str) and recipe not in row


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def choices_of(recipe: Recipe, row: Row, field: str) -> list[str]:
    """The choices.

    Raises:
        TaskError: The recipe fails on the row.
    """
    made = list(recipe.values()) if isinstance(recipe, dict) else _made(recipe, row, field)
    if _is_template(recipe, row):
        try:
            made = ast.literal_eval(str(made))
        except (SyntaxError, ValueError) as error:
            raise TaskError(f"{field}: {shown(made)} is no list of choices") from error
    if isinstance(made, list | tuple) and all(isinstance(each, str) for each in made):
        return list(made)
    raise TaskError(f"{field}: {shown(made)} is no list of texts")


def phrase_of(recipe: str, row: Row, field: str) -> str:
    """What a column or a template gives; "" for "" and for nothing.

    Raises:
        TaskError: It fails on the row.
    """
    made = _made(recipe, row, field) if recipe else None
    return "" if made is None else str(made)


def _made(recipe: Recipe, row: Row, field: str) -> Any:
    if isinstance(recipe, Function):
        try:
            return known_function(recipe)(row)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, TaskError):
                raise
            raise TaskError(f"{field}: {recipe} fails on the row: {error!r}") from error
    if not isinstance(recipe, str):
        return recipe
    if recipe in row:
        return row[recipe]
    try:
        return _template(recipe).render(**row)
    except SecurityError as error:
        raise TaskError(f"{field}: the template reaches for what it may not: {error}") from error
    except MemoryError:
        # The process has too little, whoever took it.
        raise
    except Exception as error:
        # It computes whatever its writer put into it, so it may fail in any way.
        raise TaskError(f"{field}: the template fails: {error}") from error


@lru_cache(maxsize=64)
def _template(text: str) -> Template:
    return _environment.from_string(text)

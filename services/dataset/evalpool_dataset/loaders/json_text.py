"""Strict JSON objects: what Python's reader lets pass silently is refused here."""

from __future__ import annotations

import json
from typing import NoReturn

from evalpool_dataset.loaders.problems import RowProblem


class _DuplicateField(ValueError):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Constant(ValueError):
    pass


def read_object(text: str, line: int) -> dict[str, object] | RowProblem:
    """Read one JSON object.

    A field that comes twice, NaN and Infinity, and objects nested beyond reason are refused.

    Args:
        text: The object's text.
        line: Where it begins, for problems.
    """
    try:
        value = json.loads(text, object_pairs_hook=_fields, parse_constant=_refuse_constant)
    except _DuplicateField as error:
        return RowProblem(line, error.name, "the field comes twice in this row; keep one of them")
    except _Constant as error:
        return RowProblem(line, "", f"{error} is no JSON; write null, a number or text")
    except json.JSONDecodeError as error:
        at = line + error.lineno - 1
        return RowProblem(
            line,
            "",
            f"this is no JSON: {error.msg} at line {at}, column {error.colno}; give one JSON "
            "object",
        )
    except RecursionError:
        return RowProblem(line, "", "the JSON is nested too deeply; give one flat object")
    except ValueError as error:
        # A whole number of more digits than Python converts.
        return RowProblem(line, "", f"a number cannot be read ({error}); write it as text")
    if not isinstance(value, dict):
        return RowProblem(
            line, "", f"this is {_named(value)}, not an object; give one JSON object a question"
        )
    return value


def _fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, value in pairs:
        if name in fields:
            raise _DuplicateField(name)
        fields[name] = value
    return fields


def _refuse_constant(text: str) -> NoReturn:
    raise _Constant(text)


def _named(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case _:
            return "an array"

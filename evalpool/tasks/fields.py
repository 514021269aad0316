"""Taking a task file's fields one by one, so that none is passed over in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalpool.tasks.errors import TaskError
from evalpool.tasks.yaml_file import Function

Recipe = str | int | list[Any] | dict[str, Any] | Function
"""How something is made of a row: a column's name, a template, a constant, or a function."""


@dataclass(slots=True)
class Fields:
    """The fields of a mapping, and which of them have been taken.

    Attributes:
        values: As the file has them.
        within: The mapping's own name, where it is a field itself.
    """

    values: Mapping[str, Any]
    within: str = ""
    taken: set[str] = field(default_factory=set)

    def name(self, field: str) -> str:
        """A field's name with that of the mapping."""
        return f"{self.within}.{field}" if self.within else field

    def get(self, field: str) -> Any:
        """A value as it stands; None where there is none."""
        self.taken.add(field)
        return self.values.get(field)

    def text(self, field: str, default: str = "") -> str:
        """A text."""
        value = self.get(field)
        if value is None:
            return default
        if not isinstance(value, str):
            raise TaskError(
                f"{self.name(field)}: {shown(value)} is no text; put it between quotation marks"
            )
        return value

    def optional(self, field: str) -> str | None:
        """A text, or None where it is empty."""
        return self.text(field) or None

    def truth(self, field: str) -> bool:
        """A truth value; False where there is none."""
        value = self.get(field)
        if value is not None and not isinstance(value, bool):
            raise TaskError(f"{self.name(field)}: {shown(value)} is neither true nor false")
        return bool(value)

    def integer(self, field: str, default: int, at_least: int | None = None) -> int:
        """A whole number."""
        value = self.get(field)
        if value is None:
            return default
        small = at_least is not None and isinstance(value, int) and value < at_least
        if not isinstance(value, int) or isinstance(value, bool) or small:
            what = "a whole number" if at_least is None else f"a whole number from {at_least}"
            raise TaskError(f"{self.name(field)}: {shown(value)} will not do; give {what}")
        return value

    def mapping(self, field: str) -> Mapping[str, Any]:
        """A mapping; an empty one where there is none."""
        value = self.get(field)
        value = {} if value is None else value
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise TaskError(f"{self.name(field)}: it is no mapping")
        return value

    def recipe(self, field: str, default: Recipe | None = None) -> Recipe:
        """A recipe."""
        value = self.get(field)
        value = default if value is None else value
        if isinstance(value, str | int | list | dict | Function) and not isinstance(value, bool):
            return value
        raise TaskError(
            f"{self.name(field)}: {shown(value)} is no column, template, list or function"
        )

    def function(self, field: str, default: Function | None = None) -> Function | None:
        """A function, or None where there is none."""
        value = self.get(field)
        if value is None:
            return default
        if not isinstance(value, Function):
            raise TaskError(f"{self.name(field)}: it is no function; name one with !function")
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts; none where there is none."""
        value = self.get(field)
        value = [] if value is None else value
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise TaskError(f"{self.name(field)}: {shown(value)} is no list of texts")
        return tuple(value)

    def refuse_others(self, only: Mapping[str, Sequence[Any]], ignored: frozenset[str]) -> None:
        """Refuse what was not taken.

        Args:
            only: Fields that are not done here, with the values that ask for nothing.
            ignored: Fields without a bearing here.
        """
        for name, value in self.values.items():
            if name in self.taken or name in ignored:
                continue
            if name not in only:
                raise TaskError(
                    f"{self.name(name)}: the field is unknown; correct its name or remove it"
                )
            if value not in only[name]:
                raise TaskError(
                    f"{self.name(name)}: {shown(value)} is not done here; remove it, or run the "
                    "task elsewhere"
                )


def shown(value: object, limit: int = 60) -> str:
    """A value as messages have it, cut off where it is long."""
    text = str(value) if isinstance(value, Function) else repr(value)
    return text if len(text) <= limit else text[:limit] + "…"

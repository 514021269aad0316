"""What a row of a file holds: what all kinds have in common.

Rules for all kinds:

- A field that the kind does not know is refused, because a misspelt `context` would be lost without
  a word otherwise. Names that begin with "_" are passed over: notes, and the index columns of data
  frames.
- Text is kept as it stands, letter by letter. It must not be blank, save for `context`.
- The right choice is told by its number, counted from 1, as a number or as text; or by its capital
  letter. Fields that count from 0 have a name of their own, `answer_index`, so that no file can be
  off by one unnoticed.
- The same question may come twice: published data sets have such rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from evalpool_dataset.loaders.problems import RowProblem
from evalpool_dataset.loaders.reading import Row
from evalpool_dataset.parts.base import Spec
from evalpool_dataset.question import Question


class RowFields:
    """Takes the fields of one row and remembers what is wrong with them."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self.problems: list[RowProblem] = []

    def refuse(self, field: str, message: str) -> None:
        """Remember what is wrong with a field."""
        self.problems.append(RowProblem(self._row.line, field, message, unit=self._row.unit))

    def text(self, field: str, *, required: bool = True) -> str:
        """A field's text; empty where it is wrong."""
        value = self._row.values.get(field)
        if value is None:
            if required:
                self.refuse(field, "it is missing; give a text")
            return ""
        return self.checked(field, value, required=required)

    def checked(self, field: str, value: object, *, required: bool = True) -> str:
        """A value that is to be a text; empty where it is none."""
        if not isinstance(value, str):
            self.refuse(field, f"{shown(value)} is no text; put it between quotation marks")
        elif required and not value.strip():
            self.refuse(field, "it is empty; give a text")
        elif "\0" in value:
            self.refuse(field, "it has a NUL character; remove it")
        elif not _encodable(value):
            self.refuse(field, "it has half of a surrogate pair; write the whole character")
        else:
            return value
        return ""

    def texts(self, field: str, value: object, *, at_least: int, at_most: int) -> tuple[str, ...]:
        """The texts of a list; none where it is no list of as many."""
        if not isinstance(value, list | tuple):
            self.refuse(field, f"{shown(value)} is no list; give a list of texts")
            return ()
        if not at_least <= len(value) <= at_most:
            self.refuse(field, f"it has {len(value)} entries; give {at_least} to {at_most}")
            return ()
        return tuple(self.checked(f"{field}[{i}]", entry) for i, entry in enumerate(value))


class QuestionRows(ABC):
    """What the kinds have in common.

    Attributes:
        answer_field: Where labels of a separate file go.
        answer_fields: Every field that can hold the answer.
        list_fields: Fields that hold a list.
        required: Fields that a row must have, the answer aside.
        optional: Fields that it may have.
    """

    answer_field: str
    answer_fields: frozenset[str]
    list_fields: frozenset[str] = frozenset()
    required: tuple[str, ...]
    optional: frozenset[str] = frozenset()

    def check_columns(self, columns: Sequence[str], *, labelled: bool) -> list[tuple[str, str]]:
        """What is wrong with a table's columns, as pairs of field and message."""
        wrong = [
            (name, f"the column is missing; the columns are {self._known()}")
            for name in self.required
            if name not in columns
        ]
        wrong += [(name, self._unknown_message()) for name in columns if self._is_unknown(name)]
        given = [name for name in columns if name in self.answer_fields]
        if labelled:
            wrong += [
                (name, "the file has answers, and labels were given too; leave out one of them")
                for name in given
            ]
        elif not given:
            wrong.append((self.answer_field, "the column is missing; it holds the right answer"))
        elif len(given) > 1:
            wrong.append((given[1], f"the answer is in {given[0]} too; keep one of the columns"))
        return wrong

    def parse(self, row: Row, ordinal: int) -> Question | list[RowProblem]:
        """Turn a row into the question of that place, or say what is wrong with it."""
        fields = RowFields(row)
        for name in row.values:
            if self._is_unknown(name):
                fields.refuse(name, self._unknown_message())
        context, question = self._asked(fields)
        choices = self._choices(fields, row.values)
        answer, expected = self._right(fields, row.values, len(choices))
        if fields.problems:
            return fields.problems
        return Question(ordinal, context, question, choices, answer, expected)

    @abstractmethod
    def spec(self) -> Spec:
        """For the digest."""

    def _asked(self, fields: RowFields) -> tuple[str, str]:
        """The context and the question."""
        return fields.text("context", required=False), fields.text("question")

    @abstractmethod
    def _choices(self, fields: RowFields, values: Mapping[str, object]) -> tuple[str, ...]:
        """The choices; where they are wrong, as many as there are meant to be."""

    @abstractmethod
    def _right(
        self, fields: RowFields, values: Mapping[str, object], choices: int
    ) -> tuple[int, tuple[str, ...]]:
        """The right choice's place, from 1, or 0 and the replies that are right."""

    def _is_unknown(self, name: str) -> bool:
        known = name in self.required or name in self.optional or name in self.answer_fields
        return not known and not name.startswith("_")

    def _unknown_message(self) -> str:
        return (
            f"the field is unknown; the fields are {self._known()}; correct its name, or begin it "
            'with "_" to have it passed over'
        )

    def _known(self) -> str:
        answers = " or ".join(sorted(self.answer_fields))
        return ", ".join([*self.required, *sorted(self.optional), answers])


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object, limit: int = 40) -> str:
    """A value as it is told in a message, cut off where it is long."""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    cut = text if len(text) <= limit else text[:limit] + "…"
    return "".join(c if c.isprintable() else "�" for c in cut)

"""The loader parts: what a row of a file holds, for each kind.

Rules for all kinds:

- A field that the kind does not know is refused, because a misspelt `context` would be lost without
  a word otherwise. Names that begin with "_" are passed over: notes, and the index columns of data
  frames.
- Text is kept as it stands, letter by letter. It must not be blank, save for `context`.
- The answer is the choice's number, counted from 1, as a number or as text; or its capital letter.
  Fields that count from 0 have a name of their own, `answer_index`, so that no file can be off by
  one unnoticed.
- The same question may come twice: published data sets have such rows.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from evalpool_dataset.loaders.problems import RowProblem
from evalpool_dataset.loaders.reading import Row
from evalpool_dataset.parts.base import Spec
from evalpool_dataset.question import LETTERS, MAX_CHOICES, MIN_CHOICES, Question

_NUMBER = re.compile(r"[0-9]{1,9}")


class _Fields:
    """Takes the fields of one row and remembers what is wrong with them."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self.problems: list[RowProblem] = []

    def refuse(self, field: str, message: str) -> None:
        self.problems.append(RowProblem(self._row.line, field, message, unit=self._row.unit))

    def text(self, field: str, *, required: bool = True) -> str:
        value = self._row.values.get(field)
        if value is None:
            if required:
                self.refuse(field, "it is missing; give a text")
            return ""
        return self.checked(field, value, required=required)

    def checked(self, field: str, value: object, *, required: bool = True) -> str:
        if not isinstance(value, str):
            self.refuse(field, f"{_shown(value)} is no text; put it between quotation marks")
        elif required and not value.strip():
            self.refuse(field, "it is empty; give a text")
        elif "\0" in value:
            self.refuse(field, "it has a NUL character; remove it")
        elif not _encodable(value):
            self.refuse(field, "it has half of a surrogate pair; write the whole character")
        else:
            return value
        return ""


class _ChoiceRows(ABC):
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
        fields = _Fields(row)
        for name in row.values:
            if self._is_unknown(name):
                fields.refuse(name, self._unknown_message())
        context, question = self._asked(fields)
        choices = self._choices(fields, row.values)
        answer = self._answer(fields, row.values, len(choices))
        if fields.problems:
            return fields.problems
        return Question(ordinal, context, question, choices, answer)

    @abstractmethod
    def spec(self) -> Spec:
        """For the digest."""

    def _asked(self, fields: _Fields) -> tuple[str, str]:
        """The context and the question."""
        return fields.text("context", required=False), fields.text("question")

    @abstractmethod
    def _choices(self, fields: _Fields, values: Mapping[str, object]) -> tuple[str, ...]:
        """The choices; where they are wrong, as many as there are meant to be."""

    def _answer(self, fields: _Fields, values: Mapping[str, object], choices: int) -> int:
        given = [
            name
            for name in sorted(self.answer_fields)
            if values.get(name) is not None and values[name] != ""
        ]
        if not given:
            fields.refuse(
                self.answer_field, "the answer is missing; give the choice's number from 1"
            )
            return 0
        if len(given) > 1:
            fields.refuse(given[1], f"the answer is in {given[0]} too; keep one of them")
            return 0
        name, value = given[0], values[given[0]]
        first = 0 if name == "answer_index" else 1
        place = _place(value, first)
        if choices and (place is None or not 1 <= place <= choices):
            letters = "" if first == 0 else f", or a letter from A to {LETTERS[choices - 1]}"
            fields.refuse(
                name,
                f"{_shown(value)} is none of the {choices} choices; "
                f"give {first} to {choices - 1 + first}{letters}",
            )
            return 0
        return place or 0

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


class SiqaRows(_ChoiceRows):
    """Social IQa's rows: `context`, `question`, `answerA`, `answerB`, `answerC` and the answer.

    The answer is in `label`, as the data set is published, or in `result`, as the seed has it.
    """

    answer_field = "label"
    answer_fields = frozenset({"label", "result"})
    required = ("context", "question", "answerA", "answerB", "answerC")

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "siqa/1"}

    def parse(self, row: Row, ordinal: int) -> Question | list[RowProblem]:
        """Turn a row into the question of that place, or say what is wrong with it."""
        parsed = super().parse(row, ordinal)
        if row.values.get("context") is not None:
            return parsed
        missing = RowProblem(
            row.line, "context", 'it is missing; give a text, or "" for none', unit=row.unit
        )
        return [missing, *(parsed if isinstance(parsed, list) else [])]

    def _choices(self, fields: _Fields, values: Mapping[str, object]) -> tuple[str, ...]:
        return tuple(fields.text(f"answer{letter}") for letter in "ABC")


class MultipleChoiceRows(_ChoiceRows):
    """Rows with any number of choices: `question`, `choices`, the answer, `context` and `id`.

    `choices` is a list of 2 to 26 texts; in CSV a JSON array in the cell. The answer is in `answer`
    (number from 1, or letter) or in `answer_index` (number from 0). `context` may be left out. `id`
    is the file's own name for the row; it is taken and not kept, since a version counts its
    questions.
    """

    answer_field = "answer"
    answer_fields = frozenset({"answer", "answer_index"})
    list_fields = frozenset({"choices"})
    required = ("question", "choices")
    optional = frozenset({"context", "id"})

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "multiple_choice/1"}

    def _choices(self, fields: _Fields, values: Mapping[str, object]) -> tuple[str, ...]:
        value = values.get("choices")
        if value is None:
            fields.refuse("choices", f"it is missing; give a list of {MIN_CHOICES} or more texts")
            return ()
        if not isinstance(value, list | tuple):
            fields.refuse("choices", f"{_shown(value)} is no list; give a list of texts")
            return ()
        if not MIN_CHOICES <= len(value) <= MAX_CHOICES:
            fields.refuse(
                "choices", f"it has {len(value)} entries; give {MIN_CHOICES} to {MAX_CHOICES}"
            )
            return ()
        return tuple(fields.checked(f"choices[{i}]", entry) for i, entry in enumerate(value))


class ContinuationRows(MultipleChoiceRows):
    """Rows whose prompts are written out: `prompt`, `choices`, the answer, and `id`.

    A choice follows its prompt as both stand, so whatever is between them belongs to the prompt.
    """

    required = ("prompt", "choices")
    optional = frozenset({"id"})

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "continuation/1"}

    def _asked(self, fields: _Fields) -> tuple[str, str]:
        return "", fields.text("prompt")


class EndingRows(MultipleChoiceRows):
    """Rows with a text's possible beginnings, written out: `choices`, `ending`, the answer, `id`.

    The ending follows each of the choices as both stand.
    """

    required = ("choices", "ending")
    optional = frozenset({"id"})

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "ending/1"}

    def _asked(self, fields: _Fields) -> tuple[str, str]:
        return "", fields.text("ending")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _place(value: object, first: int) -> int | None:
    """The place from 1 that a value means; `first` is what the first choice is called."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value + 1 - first
    if isinstance(value, str):
        if _NUMBER.fullmatch(value):
            return int(value) + 1 - first
        if first == 1 and len(value) == 1 and value in LETTERS:
            return LETTERS.index(value) + 1
    return None


def _shown(value: object, limit: int = 40) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    cut = text if len(text) <= limit else text[:limit] + "…"
    return "".join(c if c.isprintable() else "�" for c in cut)

"""The loader parts of the kinds whose questions have answers to choose from."""

from __future__ import annotations

import re
from collections.abc import Mapping

from evalpool_dataset.loaders.problems import RowProblem
from evalpool_dataset.loaders.reading import Row
from evalpool_dataset.parts.base import Spec
from evalpool_dataset.parts.question_rows import QuestionRows, RowFields, shown
from evalpool_dataset.question import LETTERS, MAX_CHOICES, MIN_CHOICES, Question

_NUMBER = re.compile(r"[0-9]{1,9}")


class _ChoiceRows(QuestionRows):
    """Rows that name the right one of their choices."""

    def _right(
        self, fields: RowFields, values: Mapping[str, object], choices: int
    ) -> tuple[int, tuple[str, ...]]:
        return self._answer(fields, values, choices), ()

    def _answer(self, fields: RowFields, values: Mapping[str, object], choices: int) -> int:
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
                f"{shown(value)} is none of the {choices} choices; "
                f"give {first} to {choices - 1 + first}{letters}",
            )
            return 0
        return place or 0


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

    def _choices(self, fields: RowFields, values: Mapping[str, object]) -> tuple[str, ...]:
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

    def _choices(self, fields: RowFields, values: Mapping[str, object]) -> tuple[str, ...]:
        value = values.get("choices")
        if value is None:
            fields.refuse("choices", f"it is missing; give a list of {MIN_CHOICES} or more texts")
            return ()
        return fields.texts("choices", value, at_least=MIN_CHOICES, at_most=MAX_CHOICES)


class ContinuationRows(MultipleChoiceRows):
    """Rows whose prompts are written out: `prompt`, `choices`, the answer, and `id`.

    A choice follows its prompt as both stand, so whatever is between them belongs to the prompt.
    """

    required = ("prompt", "choices")
    optional = frozenset({"id"})

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "continuation/1"}

    def _asked(self, fields: RowFields) -> tuple[str, str]:
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

    def _asked(self, fields: RowFields) -> tuple[str, str]:
        return "", fields.text("ending")


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

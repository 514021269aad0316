"""The loader parts of the kinds whose questions are answered freely."""

from __future__ import annotations

from collections.abc import Mapping

from evalpool_dataset.parts.base import Spec
from evalpool_dataset.parts.question_rows import QuestionRows, RowFields
from evalpool_dataset.question import MAX_CHOICES, MIN_CHOICES

MAX_EXPECTED = 1000
"""Published data sets have questions with hundreds of right answers."""


class GenerationRows(QuestionRows):
    """Rows whose prompts are written out: `prompt`, `expected`, `choices` and `id`.

    `expected` is a text, or a list of texts any of which is right; in CSV it is one text. `choices`
    are for filters that look for them in a reply, and may be left out; in CSV a JSON array in the
    cell. `id` is the file's own name for the row; it is taken and not kept.
    """

    answer_field = "expected"
    answer_fields = frozenset({"expected"})
    list_fields = frozenset({"choices"})
    required = ("prompt",)
    optional = frozenset({"choices", "id"})

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "generation/1"}

    def _asked(self, fields: RowFields) -> tuple[str, str]:
        return "", fields.text("prompt")

    def _choices(self, fields: RowFields, values: Mapping[str, object]) -> tuple[str, ...]:
        value = values.get("choices")
        if value is None or value == "":
            return ()
        return fields.texts("choices", value, at_least=MIN_CHOICES, at_most=MAX_CHOICES)

    def _right(
        self, fields: RowFields, values: Mapping[str, object], choices: int
    ) -> tuple[int, tuple[str, ...]]:
        value = values.get("expected")
        if isinstance(value, list | tuple):
            return 0, fields.texts("expected", value, at_least=1, at_most=MAX_EXPECTED)
        return 0, (fields.text("expected"),)


class OpenEndedRows(QuestionRows):
    """Rows with a question and the response that is expected, which a judge compares.

    `question`, `expected_response`, `context` and `id`; the last two may be left out.
    """

    answer_field = "expected_response"
    answer_fields = frozenset({"expected_response"})
    required = ("question",)
    optional = frozenset({"context", "id"})

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "open_ended/1"}

    def _choices(self, fields: RowFields, values: Mapping[str, object]) -> tuple[str, ...]:
        return ()

    def _right(
        self, fields: RowFields, values: Mapping[str, object], choices: int
    ) -> tuple[int, tuple[str, ...]]:
        return 0, (fields.text("expected_response"),)

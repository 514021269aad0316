"""What the loader tests share."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from evalpool_dataset.loaders import (
    Format,
    Limits,
    LoadedQuestions,
    LoadProblems,
    QuestionLoader,
    RowProblem,
)
from evalpool_dataset.parts import MULTIPLE_CHOICE, SIQA
from evalpool_dataset.question import Question

Result = LoadedQuestions | LoadProblems


class Load:
    """Loads bytes through the public interface, and takes the result apart."""

    def __call__(
        self,
        content: bytes | str,
        format: Format = Format.JSON_LINES,
        *,
        kind: str = "siqa",
        labels: bytes | None = None,
        limits: Limits | None = None,
        chunk: int | None = None,
    ) -> Result:
        if isinstance(content, str):
            content = content.encode()
        rows = {"siqa": SIQA, "multiple_choice": MULTIPLE_CHOICE}[kind]
        form = rows.parts(rows.defaults).loader
        size = chunk or max(1, len(content))
        with QuestionLoader(format, form, labels=labels, limits=limits) as loader:
            for start in range(0, len(content), size):
                loader.feed(content[start : start + size])
            return loader.finish()

    def questions(self, *args: object, **options: object) -> tuple[Question, ...]:
        result = self(*args, **options)  # type: ignore[arg-type]
        assert isinstance(result, LoadedQuestions), result.told
        return result.questions

    def problems(self, *args: object, **options: object) -> tuple[RowProblem, ...]:
        result = self(*args, **options)  # type: ignore[arg-type]
        assert isinstance(result, LoadProblems)
        assert result.count >= len(result.told) > 0
        for problem in result.told:
            assert ";" in problem.message, f"{problem} tells no remedy"
        return result.told

    def problem(self, *args: object, **options: object) -> RowProblem:
        told = self.problems(*args, **options)
        assert len(told) == 1, told
        return told[0]


@pytest.fixture
def load() -> Load:
    return Load()


@pytest.fixture
def row() -> Callable[..., dict[str, object]]:
    def make(**changes: object) -> dict[str, object]:
        fields = {
            "context": "Zoë didn't wait.",
            "question": "Why?",
            "answerA": "late",
            "answerB": "tired",
            "answerC": "shy",
            "label": "2",
        } | changes
        return {name: value for name, value in fields.items() if value is not ...}

    return make


@pytest.fixture
def line(row: Callable[..., dict[str, object]]) -> Callable[..., str]:
    return lambda **changes: json.dumps(row(**changes), ensure_ascii=False) + "\n"

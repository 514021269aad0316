"""Choosing the examples of a prompt, as lm-evaluation-harness does.

Agrees with `ContextSampler` and `FirstNSampler` in `lm_eval/api/samplers.py` and with the seed for
examples of its evaluator, 1234, release 0.4.13. "default" draws from one generator for all
questions in their order, so the examples of a question depend on how many came before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from evalpool.tasks.errors import TaskError

Row = Mapping[str, Any]

SEED = 1234


class ExampleSampler:
    """Chooses examples, question by question.

    Args:
        sampler: "default" or "first_n".
        rows: What there is to choose from.
        number: Examples for each question.
    """

    def __init__(self, sampler: str, rows: Sequence[Row], number: int) -> None:
        if number and not rows:
            raise TaskError("num_fewshot: there are no rows to take examples from")
        if number > len(rows):
            raise TaskError(f"num_fewshot: there are only {len(rows)} rows to take {number} from")
        self._sampler = sampler
        self._rows = list(rows)
        self._number = number
        self._random = Random(SEED)  # noqa: S311 - drawn alike everywhere

    def choose(self, asked: Row | None) -> list[Row]:
        """The examples of the next question.

        Args:
            asked: The question's row, where it may be among the examples' rows.

        Raises:
            TaskError: There are too few rows beside the question's own.
        """
        if self._number == 0:
            return []
        if self._sampler == "first_n":
            rows = self._rows
            if asked is not None:
                rows = [row for row in rows if row != asked]
            return self._enough(rows)[: self._number]
        if asked is None:
            return self._random.sample(self._rows, self._number)
        # One more, in case the question's own is among them.
        drawn = self._random.sample(self._enough(self._rows, 1), self._number + 1)
        others = [row for row in drawn if row != asked][: self._number]
        if len(others) < self._number:
            rows = [row for row in self._rows if row != asked]
            others = self._random.sample(self._enough(rows), self._number)
        return others

    def _enough(self, rows: list[Row], more: int = 0) -> list[Row]:
        if len(rows) < self._number + more:
            raise TaskError(
                f"num_fewshot: {self._number} examples and the question itself need "
                f"{self._number + 1} different rows; there are {len(self._rows)}"
            )
        return rows

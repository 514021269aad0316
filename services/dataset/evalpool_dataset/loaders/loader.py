"""The loader: bytes of a file in, questions or problems out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from evalpool_dataset.loaders.csv_table import CsvReader
from evalpool_dataset.loaders.json_array import JsonArrayReader
from evalpool_dataset.loaders.json_lines import JsonLinesReader
from evalpool_dataset.loaders.labels import read_labels
from evalpool_dataset.loaders.parquet import ParquetReader
from evalpool_dataset.loaders.problems import (
    LoadProblems,
    ProblemList,
    RowProblem,
    UnreadableFile,
)
from evalpool_dataset.loaders.reading import Limits, Row, RowForm, RowReader
from evalpool_dataset.question import Question


class Format(StrEnum):
    """The form of a file of questions."""

    JSON_LINES = "json_lines"
    JSON_ARRAY = "json_array"
    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class LoadedQuestions:
    """A file that was good from beginning to end.

    Attributes:
        questions: In the file's order, numbered from 1.
        sha256: The file's SHA-256, 64 hexadecimal digits.
        size_bytes: The file's bytes.
    """

    questions: tuple[Question, ...]
    sha256: str
    size_bytes: int


class QuestionLoader:
    """Loads one file of questions, bit by bit.

    After a problem rows are still checked, so that all problems are told at once, but none is kept.
    After a problem that makes the rest unreadable, `stopped` is true and further bytes are passed
    over.

    A context manager: leaving it drops what is held of an unfinished file.

    Args:
        format: The file's form.
        form: What the dataset's kind expects of a row.
        labels: The labels' file, where they lie in one of their own.
        limits: How much is taken.
    """

    def __init__(
        self,
        format: Format,
        form: RowForm,
        *,
        labels: bytes | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._form = form
        self._problems = ProblemList()
        self._questions: list[Question] = []
        self._rows = 0
        self._bytes = 0
        self._digest = hashlib.sha256()
        self._finished = False
        self.stopped = False
        """True: the rest of the file makes no difference any more; send no more of it."""
        self._labels: list[str] | None = None
        self._reader = _reader(format, self._limits, form, labelled=labels is not None)
        if labels is not None:
            read = read_labels(labels)
            if isinstance(read, RowProblem):
                self._stop(read)
            else:
                self._labels = read

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file, in chunks of any size."""
        if self._finished:
            raise RuntimeError("the file has ended")
        if self.stopped:
            return
        self._bytes += len(chunk)
        if self._bytes > self._limits.file_bytes:
            limit = self._limits.file_bytes
            self._stop(
                RowProblem(0, "", f"the file is larger than {limit} bytes; split it into datasets")
            )
            return
        self._digest.update(chunk)
        try:
            self._take(self._reader.feed(chunk))
        except UnreadableFile as error:
            self._stop(*error.problems)

    def finish(self) -> LoadedQuestions | LoadProblems:
        """Take the file's end.

        Returns:
            All of the questions, or, where anything is wrong, the problems and no question.
        """
        if self._finished:
            raise RuntimeError("the file has ended")
        self._finished = True
        if not self.stopped:
            try:
                self._take(self._reader.finish())
            except UnreadableFile as error:
                self._stop(*error.problems)
        self._reader.close()
        if not self.stopped:
            self._check_counts()
        if self._problems.count:
            return self._problems.closed(read_to_end=not self.stopped)
        return LoadedQuestions(tuple(self._questions), self._digest.hexdigest(), self._bytes)

    def close(self) -> None:
        """Drop what is held of a file that will not be finished. May be called at any time."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, rows: Iterator[Row | RowProblem]) -> None:
        for row in rows:
            self._rows += 1
            if self._rows > self._limits.questions:
                limit = self._limits.questions
                raise UnreadableFile(
                    RowProblem(
                        0, "", f"the file has more than {limit} questions; split it into datasets"
                    )
                )
            if isinstance(row, RowProblem):
                self._refuse(row)
            else:
                self._parse(row)

    def _parse(self, row: Row) -> None:
        labelled = self._labelled(row)
        if isinstance(labelled, RowProblem):
            self._refuse(labelled)
            return
        question = self._form.parse(labelled, self._rows)
        if isinstance(question, Question):
            if not self._problems.count:
                self._questions.append(question)
        else:
            for problem in question:
                self._refuse(problem)

    def _labelled(self, row: Row) -> Row | RowProblem:
        """The row with its label of the separate file."""
        if self._labels is None:
            return row
        inside = sorted(self._form.answer_fields & row.values.keys())
        if inside:
            return RowProblem(
                row.line,
                inside[0],
                "the row has its answer inside, and labels were given too; leave out one of them",
                unit=row.unit,
            )
        if self._rows > len(self._labels):
            # How many are missing is told once, at the end.
            return replace(row, values={**row.values, self._form.answer_field: "1"})
        label = self._labels[self._rows - 1]
        return replace(row, values={**row.values, self._form.answer_field: label})

    def _check_counts(self) -> None:
        if self._labels is not None and self._rows != len(self._labels):
            self._refuse(
                RowProblem(
                    0,
                    "",
                    f"there are {len(self._labels)} labels for {self._rows} rows; give one a row",
                    file="labels",
                )
            )
        elif not self._rows:
            self._refuse(RowProblem(0, "", "the file has no questions; give at least one"))

    def _refuse(self, problem: RowProblem) -> None:
        self._problems.add(problem)
        self._questions.clear()

    def _stop(self, *problems: RowProblem) -> None:
        for problem in problems:
            self._refuse(problem)
        self.stopped = True
        self._reader.close()


def _reader(format: Format, limits: Limits, form: RowForm, *, labelled: bool) -> RowReader:
    match format:
        case Format.JSON_LINES:
            return JsonLinesReader(limits)
        case Format.JSON_ARRAY:
            return JsonArrayReader(limits)
        case Format.CSV:
            return CsvReader(limits, form, labelled=labelled)
        case Format.PARQUET:
            return ParquetReader(limits, form, labelled=labelled)

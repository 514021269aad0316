"""What is wrong with a file of questions, told by line and field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

MAX_PROBLEMS_TOLD = 100

Unit = Literal["line", "row"]


@dataclass(frozen=True, slots=True)
class RowProblem:
    """One thing that is wrong.

    Attributes:
        line: The line where the row begins, from 1; in Parquet, which has no lines, the row. 0
            where the whole file is meant.
        field: The field, such as "answerB" or "choices[2]"; empty where the whole row is meant.
        message: One sentence that says what is wrong and what would be right.
        unit: What `line` counts.
        file: Which file is meant: "data", or "labels" where the labels lie in one of their own.
    """

    line: int
    field: str
    message: str
    unit: Unit = "line"
    file: Literal["data", "labels"] = "data"

    @property
    def path(self) -> str:
        """Where it is, as a field path: "lines[3].label"; "file" for the whole file."""
        whole = "labels" if self.file == "labels" else "file"
        if not self.line:
            return f"{whole}.{self.field}" if self.field else whole
        prefix = "labels." if self.file == "labels" else ""
        place = f"{prefix}{self.unit}s[{self.line}]"
        return f"{place}.{self.field}" if self.field else place

    def __str__(self) -> str:
        place = f"{self.unit} {self.line}" if self.line else "the file"
        if self.file == "labels":
            place = f"labels, {place}"
        return (
            f"{place}, {self.field}: {self.message}" if self.field else f"{place}: {self.message}"
        )


class UnreadableFile(Exception):
    """Problems after which the rest of the file makes no sense. Used inside the loaders."""

    def __init__(self, *problems: RowProblem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class LoadProblems:
    """Why a file was refused as a whole.

    Attributes:
        told: The first problems, at most 100.
        count: All that were found.
        read_to_end: False where reading stopped early, so that there may be more.
    """

    told: tuple[RowProblem, ...]
    count: int
    read_to_end: bool

    @property
    def summary(self) -> str:
        """One sentence for people."""
        noun = "problem" if self.count == 1 else "problems"
        more = "" if self.read_to_end else ", and was not read to its end"
        return f"the file has {self.count} {noun}{more}; nothing of it was kept. {self.told[0]}"


@dataclass(slots=True)
class ProblemList:
    """Collects problems, of which it keeps the first 100."""

    told: list[RowProblem] = field(default_factory=list)
    count: int = 0

    def add(self, problem: RowProblem) -> None:
        """Count a problem, and keep it while there is room."""
        self.count += 1
        if len(self.told) < MAX_PROBLEMS_TOLD:
            self.told.append(problem)

    def closed(self, *, read_to_end: bool) -> LoadProblems:
        """What was collected."""
        return LoadProblems(tuple(self.told), self.count, read_to_end)

"""What the benchmark programs share: rounds that alternate, their spread, the machine, reports."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """The figures of repeated runs.

    Attributes:
        values: In the order they were measured.
        median: Of them.
        low: The smallest.
        high: The largest.
    """

    values: tuple[float, ...]
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        return cls(tuple(values), statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        """Median and range, for a table."""
        return f"{self.median:,.2f} ({self.low:,.2f} to {self.high:,.2f})"


@dataclass(frozen=True, slots=True)
class Finding:
    """A figure beside what it is to reach; the median decides.

    Attributes:
        name: What was measured.
        value: The runs' figures.
        least: It is to be at least this.
        most: It is to be at most this.
    """

    name: str
    value: Spread
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        """Whether the median reaches the target."""
        median = self.value.median
        return (self.least is None or median >= self.least) and (
            self.most is None or median <= self.most
        )

    @property
    def target(self) -> str:
        """The target, for a table."""
        bounds = (("at least", self.least), ("at most", self.most))
        return ", ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)

    @property
    def verdict(self) -> str:
        """Whether it is met, or by how much it is missed."""
        if self.met:
            return "met"
        bound = self.most if self.least is None or self.value.median >= self.least else self.least
        if not bound:
            return "missed"
        return f"missed by {abs(self.value.median / bound - 1):.1%}"


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {
            name: metadata.version(name) for name in ("llama-cpp-python", "numpy", "grpcio")
        },
    }


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns; the first row is the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
        if number == 0:
            print("  ".join("-" * width for width in widths))


def print_findings(findings: Sequence[Finding]) -> None:
    """Print figures beside their targets."""
    rows = [("measure", "median and range", "target", "verdict")]
    rows += [(each.name, str(each.value), each.target, each.verdict) for each in findings]
    print_table(rows)


def write_report(path: Path | None, report: Mapping[str, Any]) -> None:
    """Write the whole report as JSON, to a file or to standard output."""
    text = json.dumps(report, indent=2, default=_as_json)
    if path is None:
        print(text)
    else:
        path.write_text(text + "\n", encoding="utf-8")


def _as_json(value: object) -> Any:
    if isinstance(value, Path):
        return str(value)
    return asdict(value)  # type: ignore[call-overload]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()

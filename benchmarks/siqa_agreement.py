"""Does scoring agree with lm-evaluation-harness on Social IQa?

Scores the 1,000 questions with SmolLM2 and compares every choice's sum of log-probabilities, the
choices by `acc`, `acc_norm` and `acc_bytes`, and the accuracies with a run of
lm-evaluation-harness in 32-bit floats on the same file.

    python -m benchmarks.siqa_agreement --json agreement.json
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measurement import (
    Finding,
    Spread,
    machine,
    print_findings,
    print_table,
    write_report,
)
from benchmarks.models import SIQA, answers, question, read_siqa, smollm2_path
from evalpool_worker.engine.base import ChoiceQuestion, QuestionResult
from evalpool_worker.engine.llama_cpp import LlamaCppEngine

# The least share of equal choices and the most difference in accuracy, in points.
LEAST_SAME = 0.97
MOST_POINTS = 1.0

LENGTHS: dict[str, Callable[[str], float]] = {
    "acc": lambda _answer: 1.0,
    "acc_norm": lambda answer: float(len(answer)),
    "acc_bytes": lambda answer: float(len(answer.encode())),
}


def choose(sums: list[float], texts: tuple[str, ...], length: Callable[[str], float]) -> int:
    """The choice with the highest sum a unit of length, counted from 1; a tie goes to the first."""
    scores = [value / length(text) for value, text in zip(sums, texts, strict=True)]
    return scores.index(max(scores)) + 1


async def run(path: Path, questions: list[ChoiceQuestion]) -> dict[int, list[float]]:
    """Every question's sums."""
    engine = LlamaCppEngine()
    await engine.load(path, path.name)
    sums: dict[int, list[float]] = {}
    async for outcome in engine.score(questions):
        if not isinstance(outcome, QuestionResult):
            raise SystemExit(f"Question {outcome.id} failed: {outcome.reason}")
        sums[int(outcome.id)] = [score.sum_logprob for score in outcome.scores]
    await engine.close()
    return sums


def main() -> None:
    """Compare, print, and exit with 1 where the targets are missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--siqa", type=Path, default=SIQA, help="folder that holds Social IQa")
    parser.add_argument("--json", type=Path, help="write the report here")
    arguments = parser.parse_args()
    rows, reference = read_siqa(arguments.siqa)
    started = time.perf_counter()
    sums = asyncio.run(run(smollm2_path(), [question(row, i) for i, row in enumerate(rows)]))
    elapsed = time.perf_counter() - started

    differences = [
        abs(ours - theirs)
        for i, expected in enumerate(reference)
        for ours, theirs in zip(sums[i], expected["sum_logprob"], strict=True)
    ]
    report: dict[str, Any] = {
        "machine": machine(),
        "questions": len(rows),
        "seconds": elapsed,
        "mean_difference": sum(differences) / len(differences),
        "largest_difference": max(differences),
    }
    table = [("metric", "same choice", "accuracy", "reference", "difference in points")]
    findings = []
    for metric, length in LENGTHS.items():
        ours = [choose(sums[i], answers(row), length) for i, row in enumerate(rows)]
        theirs = [expected[f"{metric}_choice"] for expected in reference]
        labels = [int(row["label"]) for row in rows]
        same = _share(ours, theirs)
        accuracy, accuracy_there = _share(ours, labels), _share(theirs, labels)
        points = 100 * abs(accuracy - accuracy_there)
        findings += [
            Finding(f"same choice, {metric}", Spread.of([same]), least=LEAST_SAME),
            Finding(f"points of difference, {metric}", Spread.of([points]), most=MOST_POINTS),
        ]
        report[metric] = {"same": same, "accuracy": accuracy, "reference": accuracy_there}
        table.append(
            (metric, f"{same:.1%}", f"{accuracy:.3f}", f"{accuracy_there:.3f}", f"{points:.1f}")
        )
    print_table(table)
    print(
        f"Sums differ by {report['mean_difference']:.3f} on average, "
        f"{report['largest_difference']:.2f} at most. {len(rows)} questions in {elapsed:.0f} s."
    )
    print_findings(findings)
    if arguments.json:
        write_report(arguments.json, report | {"findings": findings})
    if not all(finding.met for finding in findings):
        raise SystemExit("The targets are missed.")


def _share(left: list[int], right: list[int]) -> float:
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(left)


if __name__ == "__main__":
    main()

"""What does it do to a score what else is in its batch?

Scores questions of Social IQa once together, in full batches, once in another order, and once each
alone, and compares the sums of log-probabilities of every choice. Attention adds in another order
where the cells lie elsewhere, and llama.cpp rounds activations to 8 bits, which makes small
differences large.

    python -m benchmarks.packing --json packing.json
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measurement import machine, print_table, write_report
from benchmarks.models import SIQA, question, read_siqa, smollm2_path
from evalpool.models import quantise
from evalpool_worker.engine.base import ChoiceQuestion, QuestionResult
from evalpool_worker.engine.llama_cpp import LlamaCppEngine

Sums = dict[str, list[float]]


async def score(engine: LlamaCppEngine, questions: list[ChoiceQuestion]) -> Sums:
    """Every choice's sum of one call."""
    sums: Sums = {}
    async for outcome in engine.score(questions):
        if not isinstance(outcome, QuestionResult):
            raise SystemExit(f"Question {outcome.id} failed: {outcome.reason}")
        sums[outcome.id] = [each.sum_logprob for each in outcome.scores]
    return sums


def compare(one: Sums, other: Sums) -> dict[str, float]:
    """How far the sums of two ways are apart, and how often they choose otherwise."""
    differences = [
        abs(a - b) for name, sums in one.items() for a, b in zip(sums, other[name], strict=True)
    ]
    return {
        "mean": sum(differences) / len(differences),
        "largest": max(differences),
        "other_choice": sum(
            sums.index(max(sums)) != other[name].index(max(other[name]))
            for name, sums in one.items()
        ),
    }


async def measure(path: Path, questions: list[ChoiceQuestion]) -> dict[str, Any]:
    """One model's figures."""
    engine = LlamaCppEngine()
    info = await engine.load(path, path.name)
    packed = await score(engine, questions)
    shuffled = questions.copy()
    random.Random(1).shuffle(shuffled)
    elsewhere = await score(engine, shuffled)
    alone: Sums = {}
    for each in questions:
        alone |= await score(engine, [each])
    await engine.close()
    return {
        "engine": asdict(info),
        "alone": compare(packed, alone),
        "another order": compare(packed, elsewhere),
    }


def main() -> None:
    """Measure SmolLM2 as shipped and quantised again."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--siqa", type=Path, default=SIQA, help="folder that holds Social IQa")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", default=["Q4_1", "Q8_0"])
    parser.add_argument("--json", type=Path, help="write the report here")
    arguments = parser.parse_args()
    rows, _ = read_siqa(arguments.siqa)
    questions = [question(row, i) for i, row in enumerate(rows[: arguments.questions])]
    report: dict[str, Any] = {"machine": machine(), "models": {}}
    table = [("SmolLM2", "against", "mean |Δ Σ log p|", "largest", "other choice")]
    shipped = smollm2_path()
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds:
            path = shipped
            if kind != "Q4_1":
                path = Path(folder) / f"SmolLM2-135M-Instruct.{kind}.gguf"
                quantise(shipped, path, kind)
            report["models"][kind] = result = asyncio.run(measure(path, questions))
            for way in ("alone", "another order"):
                found = result[way]
                share = f"{found['other_choice']} of {len(questions)}"
                table.append((kind, way, f"{found['mean']:.3f}", f"{found['largest']:.2f}", share))
    print(f"{len(questions)} questions in full batches, against the same otherwise:")
    print_table(table)
    if arguments.json:
        write_report(arguments.json, report)


if __name__ == "__main__":
    main()

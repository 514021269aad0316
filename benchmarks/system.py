"""What does the whole system add to the model's arithmetic?

Runs pools on Social IQa through the six services, from the join to the score on the leaderboard,
and compares the tokens that the worker computes a second with the raw rate of `llama_decode` on
prompts of 256 tokens (`n_ubatch` 256, on the contexts and threads that scoring has, with fused
attention as scoring has it and without) in the same minutes; they alternate. Raw decoding asks for
the logits of one token in 256, scoring of one in four. Reports the accuracy beside
lm-evaluation-harness's on the same questions, and the memory of every service.

    python -m benchmarks.system --json system.json
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.deployment import System, running_system
from benchmarks.engine import PROMPT_TOKENS, RawDecode
from benchmarks.measurement import (
    Finding,
    Spread,
    machine,
    print_findings,
    print_table,
    write_report,
)
from benchmarks.models import SIQA, read_siqa, smollm2_path
from evalpool.client.datasets import results, watch_run
from evalpool.dataset.v1 import dataset_pb2
from evalpool.models import ModelStore
from evalpool_worker.engine.model import LoadedModel
from evalpool_worker.engine.shape import EngineSettings, shape_for

WARM_UP_QUESTIONS = 32
METRICS = ("acc", "acc_norm", "acc_bytes")
MIB = 2**20
MOST_MIB = {"embedding": 600.0}
MOST_MIB_OF_OTHERS = 250.0
MOST_MIB_ABOVE_MODELS = 600.0


async def measure(
    system: System, path: Path, digest: str, rows: list[dict[str, Any]], rounds: int
) -> dict[str, Any]:
    """All rounds for one model."""
    model = LoadedModel(path)
    shape = shape_for(model, EngineSettings())
    raws = {
        "raw": RawDecode(model, shape.score_contexts, shape.score.threads),
        "plain": RawDecode(model, shape.score_contexts, shape.score.threads, fused=False),
    }
    await system.entry(await system.pool(await system.load(rows[:WARM_UP_QUESTIONS])), digest)
    prompts = max(2, round(2.0 * raws["raw"].rate(1)[0] / PROMPT_TOKENS / shape.score_contexts))
    figures: dict[str, list[float]] = {
        name: [] for name in ("raw", "plain", "computed", "questions", "to_raw", "to_plain")
    }

    def rates() -> dict[str, float]:
        return {name: raw.rate(prompts)[0] for name, raw in raws.items()}

    before = rates()
    for number in range(rounds):
        # Another dataset every time, or the results would be known.
        part = rows[number:] + rows[:number]
        pool = await system.pool(await system.load(part))
        seconds, tokens, _ = await system.entry(pool, digest)
        after = rates()
        figures["computed"].append(tokens / seconds)
        figures["questions"].append(len(part) / seconds)
        for name in raws:
            # The raw rate on both sides, so that a machine that drifts favours neither.
            both = (before[name] + after[name]) / 2
            figures[name].append(both)
            figures[f"to_{name}"].append(tokens / seconds / both)
        before = after
    for raw in raws.values():
        raw.free()
    model.free()
    return {name: Spread.of(values) for name, values in figures.items()} | {
        "bytes": path.stat().st_size
    }


async def agreement(
    system: System, digest: str, rows: list[dict[str, Any]], reference: list[dict[str, Any]]
) -> dict[str, Any]:
    """Every row through the system, beside lm-evaluation-harness's choices; and a second pool."""
    dataset = await system.load(rows)
    seconds, _, run = await system.entry(await system.pool(dataset), digest)
    again_seconds, again_tokens, _ = await system.entry(await system.pool(dataset), digest)
    last = dataset_pb2.Score()
    async for score in watch_run(system.client, run):
        last = score
    predicted: dict[str, list[int]] = {metric: [] for metric in METRICS}
    async for result in results(system.client, run):
        for metric in METRICS:
            predicted[metric].append(result.predictions[metric])
    report: dict[str, Any] = {
        "questions": len(rows),
        "seconds": seconds,
        "again_seconds": again_seconds,
        "again_computed_tokens": again_tokens,
        "provenance": dict(last.provenance),
    }
    for metric in METRICS:
        theirs = [row[f"{metric}_choice"] for row in reference[: len(rows)]]
        labels = [int(row["label"]) for row in rows]
        report[metric] = {
            "same_choice": _share(predicted[metric], theirs),
            "accuracy": _share(predicted[metric], labels),
            "reference_accuracy": _share(theirs, labels),
        }
    return report


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole program."""
    rows, reference = read_siqa(arguments.siqa)
    shipped = smollm2_path()
    report: dict[str, Any] = {"machine": machine(), "models": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with running_system(folder, ModelStore(shipped.parents[2])) as system:
            for kind in arguments.kinds:
                path, digest = await system.model(shipped, kind)
                part = rows[: arguments.questions]
                report["models"][kind] = await measure(system, path, digest, part, arguments.rounds)
            report["agreement"] = await agreement(
                system, shipped.name, rows[: arguments.agreement], reference
            )
            report["memory"] = system.memory()
            # The worker has the shipped model too, for the agreement.
            sizes = {kind: figures["bytes"] for kind, figures in report["models"].items()}
            report["model_bytes"] = sum(({"Q4_1": shipped.stat().st_size} | sizes).values())
    return report


def findings(report: dict[str, Any]) -> list[Finding]:
    """The figures beside what they are to reach."""
    found = [
        Finding(f"tokens/s ÷ raw decode{how}, {kind}", figures[name], least=0.9)
        for kind, figures in report["models"].items()
        for name, how in (("to_raw", ""), ("to_plain", " without fused attention"))
    ]
    agreed = report["agreement"]
    for metric in METRICS:
        same, accuracy = agreed[metric]["same_choice"], agreed[metric]["accuracy"]
        points = 100 * abs(accuracy - agreed[metric]["reference_accuracy"])
        found += [
            Finding(f"same choice, {metric}", Spread.of([same]), least=0.97),
            Finding(f"accuracy, points of difference, {metric}", Spread.of([points]), most=1.0),
        ]
    again = Spread.of([agreed["again_computed_tokens"]])
    found.append(Finding("tokens computed again in another pool", again, most=0.0))
    for service, resident in sorted(report["memory"].items()):
        mib = resident / MIB
        if service == "worker":
            above = Spread.of([mib - report["model_bytes"] / MIB])
            found.append(Finding("worker, MiB above models", above, most=MOST_MIB_ABOVE_MODELS))
        else:
            most = MOST_MIB.get(service, MOST_MIB_OF_OTHERS)
            found.append(Finding(f"{service}, MiB", Spread.of([mib]), most=most))
    return found


def main() -> None:
    """Measure the system with SmolLM2 as shipped and quantised again."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--siqa", type=Path, default=SIQA, help="folder that holds Social IQa")
    parser.add_argument("--questions", type=int, default=1000, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=["Q4_1", "Q8_0"])
    parser.add_argument("--agreement", type=int, default=1000, help="questions to compare")
    parser.add_argument("--json", type=Path, help="write the report here")
    arguments = parser.parse_args()
    report = asyncio.run(run(arguments))
    print("Tokens a second, median and range:")
    table = [("SmolLM2", "raw decode", "without fused attention", "system", "questions/s")]
    for kind, figures in report["models"].items():
        names = ("raw", "plain", "computed", "questions")
        table.append((kind, *(str(figures[name]) for name in names)))
    print_table(table)
    found = report["agreement"]
    print(f"\n{found['questions']} questions of Social IQa beside lm-evaluation-harness:")
    head = ("metric", "same choice", "accuracy", "reference")
    shown = ("same_choice", "accuracy", "reference_accuracy")
    print_table([head, *((m, *(f"{found[m][name]:.3f}" for name in shown)) for m in METRICS)])
    print(
        f"the same again in another pool: {found['again_seconds']:.2f} s, "
        f"{found['again_computed_tokens']:.0f} tokens computed"
    )
    print()
    judged = findings(report)
    print_findings(judged)
    if arguments.json:
        write_report(arguments.json, report | {"findings": judged})


def _share(left: list[int], right: list[int]) -> float:
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(right)


if __name__ == "__main__":
    main()

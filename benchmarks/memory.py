"""How much memory does a worker take, and does it stay at that?

Sends 10,000 requests through router and worker, 16 at a time: short generations, and among them
calls of 16 questions to score. Reports the worker's resident memory above the model's file and the
KV caches, once it is warm and at the end.

    python -m benchmarks.memory --json memory.json
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

import llama_cpp

from benchmarks.deployment import System, running_system
from benchmarks.measurement import (
    Finding,
    Spread,
    machine,
    print_findings,
    print_table,
    write_report,
)
from benchmarks.models import SIQA, anew, read_siqa, smollm2_path
from evalpool.inference.v1 import inference_pb2
from evalpool.models import ModelStore
from evalpool_worker.engine.model import LoadedModel
from evalpool_worker.engine.shape import EngineSettings, shape_for

AT_ONCE = 16
WARM_AFTER = 1_000
TOKENS = 4
MIB = 2**20
MOST_MIB = 300.0
MOST_GROWTH_MIB = 16.0
"""What an allocator may keep from one moment to another; a leak of 2 KiB a request is more."""


def kv_bytes(path: Path) -> int:
    """Bytes of all KV caches that the worker makes for a model: 16 bits a number."""
    model = LoadedModel(path)
    try:
        head = llama_cpp.llama_model_n_embd(model.handle) // llama_cpp.llama_model_n_head(
            model.handle
        )
        a_cell = (
            2
            * 2
            * llama_cpp.llama_model_n_layer(model.handle)
            * llama_cpp.llama_model_n_head_kv(model.handle)
            * head
        )
        shape = shape_for(model, EngineSettings())
        return int(a_cell * (shape.score_contexts * shape.score.cells + shape.generate.cells))
    finally:
        model.free()


def resident(system: System) -> float:
    """MiB of the worker's process."""
    (worker,) = system.processes("worker")
    return float(worker.memory_info().rss) / MIB


async def measure(
    system: System, path: Path, digest: str, rows: list[dict[str, Any]], requests: int
) -> dict[str, Any]:
    """Send the requests, and look at the memory on the way."""
    model = inference_pb2.ModelReference(digest=digest)
    numbers = iter(range(requests))
    seen: list[float] = []

    async def caller() -> None:
        for number in numbers:
            row = rows[number % len(rows)]
            request = inference_pb2.InferRequest(
                model=model,
                prompt=f"{row['context']} {row['question']}",
                sampling=inference_pb2.Sampling(max_tokens=TOKENS, temperature=0.8, seed=number),
            )
            async for _ in system.client.router.Infer(request):
                pass
            if (number + 1) % WARM_AFTER == 0:
                # Scoring's contexts count from the beginning, too.
                await system.score_some(digest, anew(rows[:AT_ONCE], number))
                seen.append(resident(system))

    await system.score_some(digest, rows[:128])
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    fixed = (path.stat().st_size + kv_bytes(path)) / MIB
    return {
        "resident": seen,
        "model": path.stat().st_size / MIB,
        "kv": kv_bytes(path) / MIB,
        "above": Spread.of([seen[-1] - fixed]),
        "growth": Spread.of([seen[-1] - seen[0]]),
    }


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole program."""
    rows, _ = read_siqa(arguments.siqa)
    shipped = smollm2_path()
    report: dict[str, Any] = {"machine": machine(), "models": {}}
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory() as name:
            async with running_system(Path(name), ModelStore(shipped.parents[2])) as system:
                path, digest = await system.model(shipped, kind)
                report["models"][kind] = await measure(
                    system, path, digest, rows, arguments.requests
                )
    return report


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--siqa", type=Path, default=SIQA, help="folder that holds Social IQa")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kinds", nargs="+", default=["Q8_0"])
    parser.add_argument("--json", type=Path, help="write the report here")
    arguments = parser.parse_args()
    report = asyncio.run(run(arguments))
    table = [("SmolLM2", "model file, MiB", "KV, MiB", "warm, MiB", "at the end, MiB")]
    findings = []
    for kind, figures in report["models"].items():
        shown = (figures["model"], figures["kv"], figures["resident"][0], figures["resident"][-1])
        table.append((kind, *(f"{mib:,.0f}" for mib in shown)))
        findings += [
            Finding(f"MiB above model and KV, {kind}", figures["above"], most=MOST_MIB),
            Finding(f"MiB grown while warm, {kind}", figures["growth"], most=MOST_GROWTH_MIB),
        ]
    print_table(table)
    print()
    print_findings(findings)
    if arguments.json:
        write_report(arguments.json, report | {"findings": findings})


if __name__ == "__main__":
    main()

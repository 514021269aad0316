"""How close does scoring come to the engine's limit?

Measures the tokens a second that `score` computes on Social IQa, beside the raw rate of
`llama_decode` on prompts of 256 tokens with `n_ubatch` 256 in the same process: once on the same
contexts and threads as scoring has, once on one context with all threads (as llama-bench runs).
The three alternate. Where others use the machine, the ratio by processor time (tokens computed for
a second of the process's processor time, on the same contexts) says more than the one by the clock.
A second process a model measures memory: after questions and 16 streams.

    python -m benchmarks.engine --json engine.json
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measurement import Spread, machine, print_table, write_report
from benchmarks.models import SIQA, question, read_siqa, smollm2_path
from evalpool.models import quantise
from evalpool_worker.engine.base import ChoiceQuestion, QuestionResult, SamplingParameters
from evalpool_worker.engine.context import ContextShape, DecodeContext
from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from evalpool_worker.engine.model import LoadedModel
from evalpool_worker.engine.shape import EngineSettings, shape_for

PROMPT_TOKENS = 256


class RawDecode:
    """`llama_decode` and nothing else, on prompts of 256 tokens, in one thread a context."""

    def __init__(
        self, model: LoadedModel, contexts: int, threads: int, *, fused: bool = True
    ) -> None:
        shape = ContextShape(
            cells=PROMPT_TOKENS,
            batch_tokens=PROMPT_TOKENS,
            sequences=1,
            outputs=1,
            threads=threads,
            # With it as scoring has it, and as llama-bench chooses; this is slower without.
            flash_attention=fused,
        )
        self._contexts = [DecodeContext(model, shape) for _ in range(contexts)]
        # Which tokens does not matter to the time; these exist in every vocabulary.
        tokens = [100 + i for i in range(PROMPT_TOKENS)]
        for context in self._contexts:
            context.fill(
                tokens,
                range(PROMPT_TOKENS),
                [(0,)] * PROMPT_TOKENS,
                [False] * (PROMPT_TOKENS - 1) + [True],
            )

    def rate(self, prompts: int) -> tuple[float, float]:
        """Tokens a second, by the clock and by processor time, of `prompts` in each context."""

        def decode(context: DecodeContext) -> None:
            for _ in range(prompts):
                context.decode()
                context.forget_all()

        threads = [threading.Thread(target=decode, args=(c,)) for c in self._contexts]
        started, processor = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed, processor = time.perf_counter() - started, time.process_time() - processor
        tokens = len(self._contexts) * prompts * PROMPT_TOKENS
        return tokens / elapsed, tokens / processor

    def free(self) -> None:
        """Free the contexts."""
        for context in self._contexts:
            context.free()


async def score(
    engine: LlamaCppEngine, questions: list[ChoiceQuestion]
) -> tuple[float, float, float]:
    """Score all; computed tokens and questions a second, and tokens a processor second."""
    computed = 0
    started, processor = time.perf_counter(), time.process_time()
    async for outcome in engine.score(questions):
        if not isinstance(outcome, QuestionResult):
            raise SystemExit(f"Question {outcome.id} failed: {outcome.reason}")
        computed += outcome.computed_tokens
    elapsed, processor = time.perf_counter() - started, time.process_time() - processor
    return computed / elapsed, len(questions) / elapsed, computed / processor


async def measure(path: Path, questions: list[ChoiceQuestion], rounds: int) -> dict[str, Any]:
    """All rounds for one model."""
    engine = LlamaCppEngine()
    info = await engine.load(path, path.name)
    # The raw contexts stand on a mapping of the same file, whose pages the two share.
    model = LoadedModel(path)
    shape = shape_for(model, EngineSettings())
    same = RawDecode(model, shape.score_contexts, shape.score.threads)
    bench = RawDecode(model, 1, shape.generate.threads)
    await score(engine, questions[:24])
    scale, _ = same.rate(1)
    # A raw measurement of one or two seconds.
    prompts = max(2, round(1.5 * scale / PROMPT_TOKENS / shape.score_contexts))
    bench.rate(2)
    size = len(questions) // rounds
    figures: dict[str, list[float]] = {
        name: []
        for name in (
            "same",
            "bench",
            "computed",
            "questions",
            "to_same",
            "to_bench",
            "to_processor",
        )
    }

    def raw() -> tuple[float, float, float]:
        wall, processor = same.rate(prompts)
        return wall, bench.rate(prompts * shape.score_contexts)[0], processor

    before = raw()
    for number in range(rounds):
        part = questions[number * size : (number + 1) * size]
        computed, per_second, computed_processor = await score(engine, part)
        after = raw()
        # The raw rate on both sides, so that a machine that drifts favours neither.
        raw_same, raw_bench, raw_processor = (
            (x + y) / 2 for x, y in zip(before, after, strict=True)
        )
        before = after
        figures["to_processor"].append(computed_processor / raw_processor)
        figures["same"].append(raw_same)
        figures["bench"].append(raw_bench)
        figures["computed"].append(computed)
        figures["questions"].append(per_second)
        figures["to_same"].append(computed / raw_same)
        figures["to_bench"].append(computed / raw_bench)
    for contexts in (same, bench):
        contexts.free()
    model.free()
    await engine.close()
    return {"info": asdict(info), **{name: Spread.of(values) for name, values in figures.items()}}


async def report_memory(path: Path, questions: list[ChoiceQuestion]) -> None:
    """Print this process's memory in bytes after scoring and 16 streams."""
    engine = LlamaCppEngine()
    await engine.load(path, path.name)
    await score(engine, questions[:48])
    parameters = SamplingParameters(max_tokens=32)

    async def stream(number: int) -> None:
        async for _ in engine.generate(f"Story {number}:", parameters):
            pass

    await asyncio.gather(*(stream(number) for number in range(16)))
    print(psutil.Process().memory_info().rss)
    await engine.close()


def memory_of(path: Path, siqa: Path) -> int:
    """Resident bytes of a fresh process with this model, after work of both kinds."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.engine",
        "--siqa",
        str(siqa),
        "--memory-of",
        str(path),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def main() -> None:
    """Measure SmolLM2 as shipped and quantised again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--siqa", type=Path, default=SIQA, help="folder that holds Social IQa")
    parser.add_argument("--questions", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=["Q4_1", "Q8_0"])
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rows, _ = read_siqa(arguments.siqa)
    questions = [question(row, i) for i, row in enumerate(rows[: arguments.questions])]
    if arguments.memory_of:
        asyncio.run(report_memory(arguments.memory_of, questions))
        return

    report: dict[str, Any] = {"machine": machine(), "models": {}}
    table = [
        (
            "SmolLM2",
            "raw, same contexts",
            "raw, all threads",
            "score",
            "ratio",
            "ratio to all",
            "ratio by processor time",
        ),
    ]
    notes = []
    shipped = smollm2_path()
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds:
            path = shipped
            if kind != "Q4_1":
                path = Path(folder) / f"SmolLM2-135M-Instruct.{kind}.gguf"
                quantise(shipped, path, kind)
            result = asyncio.run(measure(path, questions, arguments.rounds))
            memory, size = memory_of(path, arguments.siqa), path.stat().st_size
            result["memory"] = {"resident": memory, "model_file": size, "above": memory - size}
            report["models"][kind] = result
            names = ("same", "bench", "computed", "to_same", "to_bench", "to_processor")
            table.append((kind, *(str(result[name]) for name in names)))
            notes.append(
                f"{kind}: {result['questions']} questions/s; resident "
                f"{memory / 2**20:,.0f} MiB, {(memory - size) / 2**20:,.0f} above the model file"
            )
    print("Tokens a second, median and range:")
    print_table(table)
    print("\n".join(notes))
    if arguments.json:
        write_report(arguments.json, report)


if __name__ == "__main__":
    main()

"""How fast is Social IQa scored, beside llama.cpp's own rate and lm-evaluation-harness?

Runs pools through the six services, from the join to the score on the leaderboard, and in turn with
them on the same machine: `llama-bench -p 256 -ub 256` on the same GGUF, lm-evaluation-harness with
`--model hf` (`gguf_file=`, batch 32, 32-bit floats) on some of the same questions, and for the file
as it is shipped `--model gguf` against llama-cpp-python's server, on a few of them. Loading a model
is in no figure.

    python -m benchmarks.scoring --json scoring.json
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.deployment import System, running_system
from benchmarks.measurement import (
    Finding,
    Spread,
    machine,
    print_findings,
    print_table,
    write_report,
)
from benchmarks.models import SIQA, question, read_siqa, smollm2_path
from benchmarks.peers import PeerUnavailable, llama_cpp_tools
from benchmarks.peers.llama_cpp import llama_bench, llama_cpp_python
from benchmarks.peers.lm_eval import LmEval, loaded_lm_eval
from evalpool.models import ModelStore
from evalpool_worker.engine.shape import available_cores

WARM_UP_QUESTIONS = 32
# Of each round; both are slower, and their rate does not depend on how many there are.
HF_QUESTIONS = 64
GGUF_QUESTIONS = 4
LEAST_TO_BENCH = {"Q4_1": 0.95, "Q8_0": 1.0, "Q4_0": 1.0}
LEAST_TO_HF = {"Q4_1": 1.65, "Q8_0": 3.6, "Q4_0": 5.9}
LEAST_TO_GGUF = 45.0


class Peers:
    """Those of the peers that can be set up here, loaded with one model.

    Args:
        path: The model.
        with_gguf: Whether the `gguf` way is asked for too, which is slow.
    """

    def __init__(self, path: Path, with_gguf: bool) -> None:
        self._path = path
        self._cores = available_cores()
        self._stack = ExitStack()
        self.missing: dict[str, str] = {}
        self.bench = self._set_up("llama-bench", llama_cpp_tools) is not None
        self.hf: LmEval | None = self._set_up(
            "lm-evaluation-harness --model hf",
            lambda: self._stack.enter_context(loaded_lm_eval("hf", str(path), self._cores)),
        )
        self.gguf: LmEval | None = None
        if with_gguf:
            self.gguf = self._set_up("lm-evaluation-harness --model gguf", self._gguf)

    def _gguf(self) -> LmEval:
        url = self._stack.enter_context(llama_cpp_python(self._path, self._cores))
        return self._stack.enter_context(loaded_lm_eval("gguf", url, self._cores))

    def _set_up(self, name: str, make: Any) -> Any:
        try:
            return make()
        except PeerUnavailable as error:
            self.missing[name] = str(error)
            return None

    def bench_rate(self) -> float:
        """Tokens a second of `llama-bench`."""
        return llama_bench(self._path, self._cores, prompt=256)

    def close(self) -> None:
        """End them."""
        self._stack.close()


async def measure(
    system: System, path: Path, digest: str, rows: list[dict[str, Any]], rounds: int, gguf: bool
) -> dict[str, Any]:
    """All rounds for one model: the system and each peer in turn."""
    peers = await asyncio.to_thread(Peers, path, gguf)
    figures: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    try:
        await system.entry(await system.pool(await system.load(rows[:WARM_UP_QUESTIONS])), digest)
        if peers.hf is not None:
            await asyncio.to_thread(peers.hf.score, [question(row, 0) for row in rows[:8]])
        size = len(rows) // rounds
        for number in range(rounds):
            part = rows[number * size : (number + 1) * size]
            seconds, tokens, _ = await system.entry(
                await system.pool(await system.load(part)), digest
            )
            ours = len(part) / seconds
            note("questions", ours)
            note("computed", tokens / seconds)
            asked = [question(row, i) for i, row in enumerate(part)]
            if peers.bench:
                rate = await asyncio.to_thread(peers.bench_rate)
                note("bench", rate)
                note("to_bench", tokens / seconds / rate)
            if peers.hf is not None:
                some = asked[:HF_QUESTIONS]
                scored = await asyncio.to_thread(peers.hf.score, some)
                note("hf", len(some) / scored.seconds)
                note("to_hf", ours * scored.seconds / len(some))
            if peers.gguf is not None:
                few = asked[:GGUF_QUESTIONS]
                scored = await asyncio.to_thread(peers.gguf.score, few)
                note("gguf", len(few) / scored.seconds)
                note("to_gguf", ours * scored.seconds / len(few))
    finally:
        peers.close()
    spreads: dict[str, Any] = {name: Spread.of(values) for name, values in figures.items()}
    return spreads | {"missing": peers.missing}


def findings(kind: str, figures: dict[str, Any]) -> list[Finding]:
    """One model's ratios beside their targets."""
    targets = (
        ("to_bench", "tokens/s ÷ llama-bench", LEAST_TO_BENCH.get(kind)),
        ("to_hf", "questions/s ÷ lm-eval hf", LEAST_TO_HF.get(kind)),
        ("to_gguf", "questions/s ÷ lm-eval gguf", LEAST_TO_GGUF),
    )
    return [
        Finding(f"{what}, {kind}", figures[name], least=least)
        for name, what, least in targets
        if name in figures
    ]


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole program."""
    rows, _ = read_siqa(arguments.siqa)
    shipped = smollm2_path()
    report: dict[str, Any] = {"machine": machine(), "models": {}}
    with tempfile.TemporaryDirectory() as name:
        async with running_system(Path(name), ModelStore(shipped.parents[2])) as system:
            for kind in arguments.kinds:
                path, digest = await system.model(shipped, kind)
                part = rows[: arguments.questions]
                report["models"][kind] = await measure(
                    system, path, digest, part, arguments.rounds, gguf=kind == "Q4_1"
                )
    return report


def main() -> None:
    """Measure SmolLM2 as shipped and quantised again."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--siqa", type=Path, default=SIQA, help="folder that holds Social IQa")
    parser.add_argument("--questions", type=int, default=1000, help="of all rounds together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=["Q4_1", "Q8_0", "Q4_0"])
    parser.add_argument("--json", type=Path, help="write the report here")
    arguments = parser.parse_args()
    report = asyncio.run(run(arguments))
    names = ("questions", "computed", "bench", "hf", "gguf")
    table = [
        (
            "SmolLM2",
            "questions/s",
            "tokens/s",
            "llama-bench tokens/s",
            "lm-eval hf questions/s",
            "lm-eval gguf questions/s",
        )
    ]
    judged: list[Finding] = []
    for kind, figures in report["models"].items():
        table.append((kind, *(str(figures.get(name, "–")) for name in names)))
        judged += findings(kind, figures)
        for peer, why in figures["missing"].items():
            print(f"not measured: {peer}: {why}")
    print_table(table)
    print()
    print_findings(judged)
    if arguments.json:
        write_report(arguments.json, report | {"findings": judged})


if __name__ == "__main__":
    main()

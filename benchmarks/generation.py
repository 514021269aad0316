"""How fast is text generated through router and worker, beside llama.cpp's own server?

Sixteen streams of 64 tokens at once, likeliest token first: tokens a second of all together, and
the time to the first token, beside `llama-server -np 16` with the same model, prompts and
threads; and one stream alone, from its first text to its end, beside `llama-bench`'s tg64. All are
asked by the same process, ours over gRPC through the router, llama-server over HTTP (server-sent
events); they take turns.

    python -m benchmarks.generation --json generation.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.deployment import System, running_system
from benchmarks.measurement import (
    Finding,
    Spread,
    machine,
    print_findings,
    print_table,
    write_report,
)
from benchmarks.models import SIQA, read_siqa, smollm2_path
from benchmarks.peers.llama_cpp import llama_bench, llama_server
from evalpool.inference.v1 import inference_pb2
from evalpool.models import ModelStore
from evalpool_worker.engine.shape import available_cores

STREAMS = 16
TOKENS = 64
CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class Stream:
    """One generation as its caller saw it.

    Attributes:
        first: Seconds to the first text.
        seconds: To the end.
        tokens: Generated.
    """

    first: float
    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Round:
    """Streams that ran together.

    Attributes:
        rate: Tokens a second of all together.
        first_median: Half of the streams had their first text within so many seconds.
        first_last: 99 of 100 had.
    """

    rate: float
    first_median: float
    first_last: float


Generate = Callable[[str], Awaitable[Stream]]


def through_the_herd(system: System, digest: str) -> Generate:
    """Ask our router."""

    async def generate(prompt: str) -> Stream:
        request = inference_pb2.InferRequest(
            model=inference_pb2.ModelReference(digest=digest),
            prompt=prompt,
            sampling=inference_pb2.Sampling(max_tokens=TOKENS, temperature=0.0),
        )
        started, first, tokens = time.perf_counter(), 0.0, 0
        async for response in system.client.router.Infer(request):
            if response.HasField("chunk"):
                first = first or time.perf_counter() - started
            else:
                tokens = response.complete.usage.completion_tokens
        return Stream(first, time.perf_counter() - started, tokens)

    return generate


def at_llama_server(http: httpx.AsyncClient, url: str) -> Generate:
    """Ask llama-server; without its cache of earlier prompts, which repeats would profit from."""

    async def generate(prompt: str) -> Stream:
        body = {"prompt": prompt, "n_predict": TOKENS, "temperature": 0.0, "stream": True}
        body["cache_prompt"] = False
        started, first, tokens = time.perf_counter(), 0.0, 0
        async with http.stream("POST", f"{url}/completion", json=body) as response:
            async for line in _lines(response):
                first = first or time.perf_counter() - started
                event = json.loads(line)
                if event.get("stop"):
                    tokens = int(event["tokens_predicted"])
        return Stream(first, time.perf_counter() - started, tokens)

    return generate


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


async def round_of(generate: Generate, prompts: list[str]) -> Round:
    """Run all prompts at once."""
    started = time.perf_counter()
    streams = await asyncio.gather(*(generate(prompt) for prompt in prompts))
    seconds = time.perf_counter() - started
    firsts = [stream.first for stream in streams]
    return Round(
        sum(stream.tokens for stream in streams) / seconds,
        float(np.quantile(firsts, 0.5)),
        float(np.quantile(firsts, 0.99)),
    )


async def measure(
    system: System, path: Path, digest: str, prompts: list[str], rounds: int
) -> dict[str, Any]:
    """All rounds for one model."""
    cores = available_cores()
    ours = through_the_herd(system, digest)
    figures: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    with llama_server(path, STREAMS, cores, CONTEXT) as url:
        async with httpx.AsyncClient(timeout=600.0) as http:
            theirs = at_llama_server(http, url)
            for generate in (ours, theirs):
                await round_of(generate, prompts[:STREAMS])
            for number in range(1, rounds + 1):
                part = prompts[number * STREAMS : (number + 1) * STREAMS]
                mine, peer = await round_of(ours, part), await round_of(theirs, part)
                note("tokens/s", mine.rate)
                note("llama-server tokens/s", peer.rate)
                note("rate", mine.rate / peer.rate)
                note("first_median", mine.first_median / peer.first_median)
                note("first_last", mine.first_last / peer.first_last)
                note("first text, s", mine.first_median)
                note("llama-server first text, s", peer.first_median)
    for number in range(rounds):
        alone = await ours(prompts[number])
        # llama-bench's rate has no prompt in it.
        rate = (alone.tokens - 1) / (alone.seconds - alone.first)
        bench = await asyncio.to_thread(llama_bench, path, cores, generate=TOKENS)
        note("one stream tokens/s", rate)
        note("llama-bench tokens/s", bench)
        note("alone", rate / bench)
    return {name: Spread.of(values) for name, values in figures.items()}


def findings(kind: str, figures: dict[str, Any]) -> list[Finding]:
    """One model's ratios beside their targets."""
    return [
        Finding(f"16 streams, tokens/s ÷ llama-server, {kind}", figures["rate"], least=1.0),
        Finding(f"time to first token, p50 ÷, {kind}", figures["first_median"], most=1.0),
        Finding(f"time to first token, p99 ÷, {kind}", figures["first_last"], most=1.0),
        Finding(f"one stream, tokens/s ÷ llama-bench tg, {kind}", figures["alone"], least=0.95),
    ]


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole program."""
    rows, _ = read_siqa(arguments.siqa)
    prompts = [f"Here is a long story. {row['context']} Then" for row in rows]
    shipped = smollm2_path()
    report: dict[str, Any] = {"machine": machine(), "models": {}}
    with tempfile.TemporaryDirectory() as name:
        async with running_system(Path(name), ModelStore(shipped.parents[2])) as system:
            for kind in arguments.kinds:
                path, digest = await system.model(shipped, kind)
                report["models"][kind] = await measure(
                    system, path, digest, prompts, arguments.rounds
                )
    return report


def main() -> None:
    """Measure SmolLM2 as shipped and quantised again."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--siqa", type=Path, default=SIQA, help="folder that holds Social IQa")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=["Q4_1", "Q8_0"])
    parser.add_argument("--json", type=Path, help="write the report here")
    arguments = parser.parse_args()
    report = asyncio.run(run(arguments))
    judged: list[Finding] = []
    shown = (
        "tokens/s",
        "llama-server tokens/s",
        "first text, s",
        "llama-server first text, s",
        "one stream tokens/s",
        "llama-bench tokens/s",
    )
    table = [("SmolLM2", *shown)]
    for kind, figures in report["models"].items():
        table.append((kind, *(str(figures[name]) for name in shown)))
        judged += findings(kind, figures)
    print_table(table)
    print()
    print_findings(judged)
    if arguments.json:
        write_report(arguments.json, report | {"findings": judged})


if __name__ == "__main__":
    main()

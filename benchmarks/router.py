"""What does the router add?

One client calls Infer at a worker that answers at once: through the router, through a bare
grpc.aio relay of the same messages, and directly; each in a process of its own, the ways in turn.
Calls a second with 32 in flight and one chunk each, messages a second in streams of 500 chunks, and
the latency of one caller. And how long the scheduler alone takes for a dispatch with 1,000 workers
and 100,000 requests waiting, beside 10 workers and 1,000 requests.

    python -m benchmarks.router --json router.json
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks.measurement import (
    Finding,
    Spread,
    machine,
    print_findings,
    print_table,
    write_report,
)
from evalpool.channel import open_channel
from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.models import find_model
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool.worker.v1 import worker_pb2_grpc
from evalpool_router.scheduler import Dispatch, Kind, Registration, Request, Rules, Scheduler

MODEL = find_model("SmolLM2-135M-Instruct.Q4_1").sha256 or ""
IN_FLIGHT = 32
CALLS = 3_000
STREAMS = 32
CHUNKS = 500
SINGLE_CALLS = 1_000
SLOTS = 64


@contextmanager
def part(*words: str) -> Iterator[list[str]]:
    """A process of `benchmarks.peers.router_parts`; gives the words that it prints."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.router_parts", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                log.seek(0)
                raise SystemExit(f"the {words[0]} did not start: {log.read()}")
            yield line.split()
        finally:
            if process.stdin is not None:
                process.stdin.close()
            process.wait()


def asked(chunks: int) -> inference_pb2.InferRequest:
    """A request that is answered with so many chunks."""
    return inference_pb2.InferRequest(
        model=inference_pb2.ModelReference(digest=MODEL),
        prompt="How long is a piece of string?",
        sampling=inference_pb2.Sampling(max_tokens=chunks),
    )


async def call(stub: Any, request: inference_pb2.InferRequest) -> None:
    """One call to its end."""
    async for _ in stub.Infer(request):
        pass


async def calls_a_second(stub: Any, count: int, chunks: int, at_once: int) -> float:
    """Make calls, so many at once."""
    request, left = asked(chunks), iter(range(count))

    async def caller() -> None:
        for _ in left:
            await call(stub, request)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    return count / (time.perf_counter() - started)


async def latency(stub: Any) -> float:
    """Milliseconds of a call with one chunk, one caller, p50."""
    request, seconds = asked(1), []
    for _ in range(SINGLE_CALLS):
        started = time.perf_counter()
        await call(stub, request)
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.quantile(seconds, 0.5))


async def measure(rounds: int) -> dict[str, Any]:
    """All rounds, the three ways in turn."""
    figures: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        worker_key = Identity.load_or_create(folder / "worker.json")
        (worker,) = stack.enter_context(part("worker", str(folder / "worker.json")))
        (relay,) = stack.enter_context(part("relay", worker))
        router, address = stack.enter_context(
            part("router", str(folder / "router"), worker_key.address)
        )
        caller = Identity.generate()
        stubs: dict[str, Any] = {}
        for name, endpoint in (("direct", worker), ("relay", relay)):
            channel = await stack.enter_async_context(open_channel(endpoint, retries=False))
            stubs[name] = worker_pb2_grpc.WorkerServiceStub(channel)
        for name, identity in (("router", caller), ("registering", worker_key)):
            channel = await stack.enter_async_context(
                open_channel(router, identity, address, retries=False)
            )
            stubs[name] = router_pb2_grpc.RouterServiceStub(channel)
        await stubs["registering"].RegisterWorker(
            router_pb2.RegisterWorkerRequest(
                endpoint=worker,
                kinds=[router_pb2.WORKER_KIND_CHAT],
                slots=SLOTS,
                memory_bytes=2**40,
                models=[MODEL],
                engine="bench",
                engine_build="bench",
                instance="bench",
            )
        )
        for name in ("direct", "relay", "router"):
            await calls_a_second(stubs[name], 200, 1, IN_FLIGHT)
        for _ in range(rounds):
            rates, streams, singles = {}, {}, {}
            for name in ("relay", "router"):
                rates[name] = await calls_a_second(stubs[name], CALLS, 1, IN_FLIGHT)
            for name in ("relay", "router"):
                per_second = await calls_a_second(stubs[name], STREAMS, CHUNKS, IN_FLIGHT)
                streams[name] = per_second * (CHUNKS + 1)
            for name in ("direct", "relay", "router"):
                singles[name] = await latency(stubs[name])
            for name in ("relay", "router"):
                note(f"{name} calls/s", rates[name])
                note(f"{name} messages/s", streams[name])
            for name, milliseconds in singles.items():
                note(f"{name} ms", milliseconds)
            note("calls", rates["router"] / rates["relay"])
            note("messages", streams["router"] / streams["relay"])
            note("added ms", singles["router"] - singles["direct"])
            note("added to one call ms", singles["router"] - 2 * singles["direct"])
    return {name: Spread.of(values) for name, values in figures.items()}


def dispatch_cost(workers: int, waiting: int, dispatches: int) -> float:
    """Microseconds that the scheduler takes from one finished request to the next dispatch."""
    scheduler = Scheduler(Rules(queue_units=waiting + workers, caller_share=1.0), 0.0)
    now = 0.0
    for number in range(workers):
        scheduler.worker_registered(
            Registration(
                address=f"worker-{number}",
                generation=1,
                kinds=frozenset({Kind.CHAT}),
                slots=1,
                models=frozenset({MODEL}),
            ),
            now,
        )
    running: list[int] = []
    for number in range(waiting + workers):
        request = Request(
            id=number,
            caller=f"caller-{number % 100}",
            kind=Kind.CHAT,
            model=MODEL,
            tokens=(100 + number % 7,),
            deadline=1e9,
        )
        running += _dispatched(scheduler.submit(request, now))
    started = time.perf_counter()
    for _ in range(dispatches):
        now += 0.001
        dispatch = running.pop(0)
        _, effects = scheduler.questions_finished(dispatch, (0,), now)
        effects += scheduler.finished(dispatch, now)
        running += _dispatched(effects)
    return 1e6 * (time.perf_counter() - started) / dispatches


def _dispatched(effects: Any) -> list[int]:
    return [effect.id for effect in effects if isinstance(effect, Dispatch)]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the report here")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"machine": machine()}
    report["figures"] = figures = uvloop.run(measure(arguments.rounds))
    small, large = [], []
    for _ in range(arguments.rounds):
        small.append(dispatch_cost(10, 1_000, 900))
        large.append(dispatch_cost(1_000, 100_000, 9_000))
    figures["small µs"], figures["large µs"] = Spread.of(small), Spread.of(large)
    growth = Spread.of([many / few for many, few in zip(large, small, strict=True)])
    print_table([("", "median and range"), *((name, str(each)) for name, each in figures.items())])
    findings = [
        Finding("calls/s ÷ bare relay", figures["calls"], least=0.7),
        Finding("stream messages/s ÷ bare relay", figures["messages"], least=0.7),
        Finding("added latency above one bare call, ms", figures["added to one call ms"], most=0.3),
        Finding("dispatch, 1,000 workers ÷ 10", growth, most=2.0),
    ]
    print()
    print_findings(findings)
    if arguments.json:
        write_report(arguments.json, report | {"findings": findings})


if __name__ == "__main__":
    main()

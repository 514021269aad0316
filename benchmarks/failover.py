"""What does the loss of a worker cost?

A run of 1,000 questions on two workers, one of which gets SIGKILL half-way (its keeper starts it
again, as `evalpool up` does), in turn with the same run left alone. Reports the extra time, what
the killed worker had been given and not finished, as the time that the herd takes for so many
questions, and whether every question was scored exactly once.

    python -m benchmarks.failover --json failover.json
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass
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
from benchmarks.models import SIQA, anew, read_siqa, smollm2_path
from evalpool.client.datasets import results, watch_run
from evalpool.dataset.v1 import dataset_pb2
from evalpool.models import ModelStore
from evalpool.router.v1 import router_pb2

WORKERS = 2
WARM_UP_QUESTIONS = 128
MOST_EXTRA_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that came to its end.

    Attributes:
        seconds: From the start to the last result.
        lost: Questions that the killed worker had been given and not finished; 0 without a kill.
        miscounted: Questions without a result, or with more than one.
    """

    seconds: float
    lost: float
    miscounted: int


async def evaluate(system: System, digest: str, rows: list[dict[str, Any]], kill: bool) -> Finished:
    """Evaluate rows as a dataset of their own."""
    dataset = await system.load(rows)
    started, lost = time.perf_counter(), 0.0
    response = await system.client.dataset.Benchmark(
        dataset_pb2.BenchmarkRequest(dataset=dataset, subject=digest, request_id=dataset)
    )
    run, killed, last = response.score.run, False, response.score
    async for last in watch_run(system.client, run):
        if kill and not killed and len(rows) // 2 <= last.done < len(rows):
            killed = True
            lost = await kill_one(system)
    seconds = time.perf_counter() - started
    if last.done != len(rows):
        raise SystemExit(f"{last.done} of {len(rows)} questions are done: {last.reason}")
    if kill and not killed:
        raise SystemExit("the run was over before a worker could be killed; ask more --questions")
    seen = [result.question async for result in results(system.client, run)]
    missing = len(rows) - len(set(seen))
    return Finished(seconds, lost, missing + len(seen) - len(set(seen)))


async def kill_one(system: System) -> float:
    """SIGKILL the last worker; gives the questions that it had been given and not finished."""
    router = system.operator.router
    standing = await router.GetStatistics(router_pb2.GetStatisticsRequest())
    tokens = {w.endpoint: w.outstanding_tokens for w in standing.worker_details}
    endpoint = [p.endpoint for p in system.plan.processes if p.service == "worker"][-1]
    for process in system.processes("worker"):
        if endpoint in process.cmdline():
            process.kill()
    total = sum(tokens.values())
    return standing.running * tokens[endpoint] / total if total else 0.0


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole program."""
    rows, _ = read_siqa(arguments.siqa)
    rows = rows[: arguments.questions]
    shipped = smollm2_path()
    plain, killed = [], []
    with tempfile.TemporaryDirectory() as name:
        store = ModelStore(shipped.parents[2])
        async with running_system(Path(name), store, workers=WORKERS) as system:
            _, digest = await system.model(shipped, "Q8_0")
            await evaluate(system, digest, rows[:WARM_UP_QUESTIONS], kill=False)
            for number in range(arguments.rounds):
                await system.workers_are_there(WORKERS)
                plain.append(await evaluate(system, digest, anew(rows, 2 * number), kill=False))
                killed.append(await evaluate(system, digest, anew(rows, 2 * number + 1), kill=True))
    pairs = list(zip(plain, killed, strict=True))
    lost = [each.lost * alone.seconds / len(rows) for alone, each in pairs]
    extra = [each.seconds - alone.seconds for alone, each in pairs]
    return {
        "machine": machine(),
        "plain": Spread.of([each.seconds for each in plain]),
        "killed": Spread.of([each.seconds for each in killed]),
        "lost": Spread.of(lost),
        "extra": Spread.of(extra),
        "above": Spread.of([more - work for more, work in zip(extra, lost, strict=True)]),
        "miscounted": Spread.of([float(each.miscounted) for each in plain + killed]),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--siqa", type=Path, default=SIQA, help="folder that holds Social IQa")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the report here")
    arguments = parser.parse_args()
    report = asyncio.run(run(arguments))
    shown = {
        "left alone, s": "plain",
        "one worker killed, s": "killed",
        "extra, s": "extra",
        "lost work, s": "lost",
    }
    print_table([("", "median and range"), *((k, str(report[v])) for k, v in shown.items())])
    findings = [
        Finding("extra time beyond the lost work, s", report["above"], most=MOST_EXTRA_SECONDS),
        Finding("questions lost or counted twice", report["miscounted"], most=0.0),
    ]
    print()
    print_findings(findings)
    if arguments.json:
        write_report(arguments.json, report | {"findings": findings})


if __name__ == "__main__":
    main()

"""What does the loss of a worker cost?

A run of 1,000 questions on two workers, one of which gets SIGKILL half-way (its keeper starts it
again, as `evalpool up` does), in turn with the same run left alone. Reports the extra time, and
whether every question was scored exactly once.

The extra time has three parts. The lost work is what the killed worker had computed since its last
answer, and is computed again: the only part that no system can avoid, so it is taken off. What it
had been given and not begun is not lost, it waits in the queue again. While the worker is away
the herd computes at half of its speed, since each worker keeps to its half of the cores: a start of
the process, the registration and the model's loading cost half of the time that they take. What is
left is what recovery itself takes, and the end of the run, where one worker may wait for the other.

    python -m benchmarks.failover --json failover.json
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
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
from evalpool.cli.deployment_plan import ProcessPlan
from evalpool.client.datasets import results, watch_run
from evalpool.dataset.v1 import dataset_pb2
from evalpool.models import ModelStore

WORKERS = 2
WARM_UP_QUESTIONS = 128
MOST_EXTRA_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that came to its end.

    Attributes:
        seconds: From the start to the last result.
        lost: Seconds that the herd takes for what the killed worker had computed and not told.
        away: Seconds from the kill until that worker computed again, or else to the run's end.
        miscounted: Questions without a result, or with more than one.
    """

    seconds: float
    lost: float
    away: float
    miscounted: int


async def evaluate(system: System, digest: str, rows: list[dict[str, Any]], kill: bool) -> Finished:
    """Evaluate rows as a dataset of their own."""
    dataset = await system.load(rows)
    started, killed_at = time.perf_counter(), 0.0
    response = await system.client.dataset.Benchmark(
        dataset_pb2.BenchmarkRequest(dataset=dataset, subject=digest, request_id=dataset)
    )
    run, last = response.score.run, response.score
    async for last in watch_run(system.client, run):
        if kill and not killed_at and len(rows) // 2 <= last.done < len(rows):
            killed_at = time.time()
            kill_last_worker(system)
    seconds = time.perf_counter() - started
    if last.done != len(rows):
        raise SystemExit(f"{last.done} of {len(rows)} questions are done: {last.reason}")
    if kill and not killed_at:
        raise SystemExit("the run was over before a worker could be killed; ask more --questions")
    seen = [result async for result in results(system.client, run)]
    questions = {result.question for result in seen}
    miscounted = len(rows) - len(questions) + len(seen) - len(questions)
    if not kill:
        return Finished(seconds, 0.0, 0.0, miscounted)
    lost, away = around(killed_at, last_worker(system).address, seen)
    return Finished(seconds, lost, away, miscounted)


def around(
    killed_at: float, worker: str, seen: Sequence[dataset_pb2.ListResultsResponse]
) -> tuple[float, float]:
    """What the herd lost with a worker, and how long it was away, by the results' own times."""
    spans = [
        (
            result.inference_start_time.ToDatetime(UTC).timestamp(),
            result.inference_end_time.ToDatetime(UTC).timestamp(),
        )
        for result in seen
        if result.worker == worker
    ]
    told = max((end for _, end in spans if end <= killed_at), default=killed_at)
    over = max(result.inference_end_time.ToDatetime(UTC).timestamp() for result in seen)
    back = min((start for start, _ in spans if start > killed_at), default=over)
    return (killed_at - told) / WORKERS, back - killed_at


def last_worker(system: System) -> ProcessPlan:
    """The one that is killed."""
    return [each for each in system.plan.processes if each.service == "worker"][-1]


def kill_last_worker(system: System) -> None:
    """SIGKILL it."""
    endpoint = last_worker(system).endpoint
    for process in system.processes("worker"):
        if endpoint in process.cmdline():
            process.kill()


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
    lost = [each.lost for each in killed]
    extra = [each.seconds - alone.seconds for alone, each in pairs]
    return {
        "machine": machine(),
        "plain": Spread.of([each.seconds for each in plain]),
        "killed": Spread.of([each.seconds for each in killed]),
        "lost": Spread.of(lost),
        "extra": Spread.of(extra),
        "away": Spread.of([each.away for each in killed]),
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
        "worker away, s": "away",
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

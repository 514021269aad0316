"""`evalpool dataset evaluate`, `score` and `results`: a model's run on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from evalpool.cli.app import run
from evalpool.cli.commands.dataset import EVALUATORS, DatasetId, Evaluator, EvaluatorName, group
from evalpool.cli.failure import Failure
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet, client_of
from evalpool.cli.output import (
    Format,
    console,
    enum_text,
    print_fields,
    print_json,
    print_table,
    printable,
    short,
)
from evalpool.cli.progress import Tracker
from evalpool.cli.subjects import model_digest
from evalpool.client import Client
from evalpool.client.datasets import FINAL_RUN_STATES, results, watch_run
from evalpool.client.result_files import json_line, result_writer, write_results
from evalpool.dataset.v1 import dataset_pb2

RunId = Annotated[
    str,
    typer.Argument(metavar="run", help="The run's id, as `evalpool dataset evaluate` gives it."),
]


@group.command()
def evaluate(
    dataset: DatasetId,
    model: Annotated[
        str, typer.Argument(help="A model's digest, its name in the catalogue, or a GGUF file.")
    ],
    evaluator: Evaluator = EvaluatorName.DEFAULT,
    version: Annotated[str, typer.Option(help="Default: the newest.")] = "",
    wait: Annotated[bool, typer.Option(help="Follow the run to its end.")] = False,
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Run a model on your own dataset."""

    async def work() -> dataset_pb2.Score:
        async with client_of(wallet) as client:
            response = await client.dataset.Benchmark(
                dataset_pb2.BenchmarkRequest(
                    dataset=dataset,
                    version=version,
                    subject=await model_digest(client, model),
                    evaluator=EVALUATORS[evaluator],
                    request_id=f"benchmark-{uuid4()}",
                )
            )
            if not wait:
                return response.score
            return await _follow(client, response.score.run, quiet=output is Format.JSON)

    _print_score(run(work()), output)


@group.command()
def score(
    run_id: RunId,
    watch: Annotated[bool, typer.Option(help="Follow the run to its end.")] = False,
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Show a run's score."""

    async def work() -> dataset_pb2.Score:
        async with client_of(wallet) as client:
            if watch:
                return await _follow(client, run_id, quiet=output is Format.JSON)
            response = await client.dataset.GetScore(dataset_pb2.GetScoreRequest(run=run_id))
            return response.score

    _print_score(run(work()), output)


@group.command("results")
def list_results(
    run_id: RunId,
    file: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="Write them to this file, whose ending tells the form: .jsonl or .parquet.",
        ),
    ] = None,
    output: Output = Format.JSON,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Give a run's evaluations, question by question: as JSON Lines, unless told otherwise."""
    if file is not None:
        _write_results(run_id, file, output, wallet)
        return

    async def work() -> list[dataset_pb2.ListResultsResponse]:
        found = []
        async with client_of(wallet) as client:
            async for result in results(client, run_id):
                if output is Format.JSON:
                    print(json_line(result), flush=True)
                else:
                    found.append(result)
        return found

    found = run(work())
    if output is Format.TABLE:
        _print_results(found)


def _write_results(run_id: str, file: Path, output: Format, wallet: str) -> None:
    # A name that will not do is told of before anything is asked.
    result_writer(file)

    async def work() -> int:
        async with client_of(wallet) as client:
            found = await client.dataset.GetScore(dataset_pb2.GetScoreRequest(run=run_id))
            with Tracker(f"writing {file.name}") as tracker:
                return await write_results(
                    client,
                    run_id,
                    file,
                    progress=lambda count: tracker.show("", count, found.score.total),
                )

    count = run(work())
    if output is Format.JSON:
        print_json({"file": str(file), "results": count})
    else:
        console.print(f"{count} results in {file}")


async def _follow(client: Client, run_id: str, *, quiet: bool) -> dataset_pb2.Score:
    last = dataset_pb2.Score()
    with Tracker(f"run {short(run_id)}", quiet=quiet) as tracker:
        async for last in watch_run(client, run_id):
            state = enum_text(dataset_pb2.RunState.Name(last.state), "RUN_STATE_")
            tracker.show(state, last.done, last.total)
            ended = last.state in FINAL_RUN_STATES
            tracker.note("" if ended or not last.reason else f"{state}: {printable(last.reason)}")
    return last


def _print_results(found: list[dataset_pb2.ListResultsResponse]) -> None:
    print_table(
        [
            ">question",
            "state",
            ">right",
            ">predicted",
            ">points",
            "Σ log p of each choice",
            "reply",
        ],
        [
            (
                r.question,
                enum_text(dataset_pb2.EvaluationState.Name(r.state), "EVALUATION_STATE_"),
                r.correct_answer or "",
                r.prediction or "",
                r.points if r.state == dataset_pb2.EVALUATION_STATE_DONE else "",
                "  ".join(f"{each:.3f}" for each in r.sum_logprobs),
                r.reply or r.reason,
            )
            for r in found
        ],
    )


def _print_score(found: dataset_pb2.Score, output: Format) -> None:
    if output is Format.JSON:
        print_json(found)
    else:
        print_fields(
            {
                "run": found.run,
                "dataset": found.dataset,
                "subject": found.subject,
                "evaluator": enum_text(dataset_pb2.Evaluator.Name(found.evaluator), "EVALUATOR_"),
                "state": enum_text(dataset_pb2.RunState.Name(found.state), "RUN_STATE_"),
                "reason": found.reason,
                "progress": f"{found.done}/{found.total}",
                "correct": found.correct,
                "score": f"{found.score:.4f}" if found.done else None,
                **{name: f"{value:.4f}" for name, value in sorted(found.metrics.items())},
            }
        )
    if found.state == dataset_pb2.RUN_STATE_FAILED:
        raise Failure(f"the run failed: {found.reason}", reason=found.reason_code)
    if found.state == dataset_pb2.RUN_STATE_UNFUNDED:
        raise Failure(f"the run stands still: {found.reason}", reason=found.reason_code)

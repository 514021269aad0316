"""`evalpool dataset import`: a task file of lm-evaluation-harness becomes a dataset."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import grpc
import typer

from evalpool.cli.app import run
from evalpool.cli.commands.dataset import METRICS, DatasetId, MetricName, group, print_loaded
from evalpool.cli.failure import Failure
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet, client_of
from evalpool.cli.output import Format
from evalpool.cli.progress import Tracker
from evalpool.client import Client
from evalpool.client.datasets import load_file
from evalpool.dataset.v1 import dataset_pb2
from evalpool.tasks import (
    TaskError,
    TaskFile,
    choice_prompts,
    kind_of,
    read_splits,
    read_task,
    row_of,
)


@group.command("import")
def import_task(
    dataset: DatasetId,
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="A task file of lm-evaluation-harness, in YAML."
        ),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="SPLIT=FILE: the rows of a split, in JSON, JSON Lines, CSV or Parquet; several "
            "times for several. Default: the files that the task names.",
        ),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Examples before each question. Default: the task's.")
    ] = None,
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Write a task's prompts out, and load them as a dataset."""
    quiet = output is Format.JSON
    with Tracker(f"writing {file.name} out", quiet=quiet) as tracker:
        try:
            task = read_task(file)
            if shots is not None:
                task = replace(task, shots=replace(task.shots, number=shots))
            splits = read_splits(task, _given(data or []))
            total = len(splits.get(task.split, ()))
            kind, rows = "continuation", []
            for prompt in choice_prompts(task, splits):
                kind = kind_of(prompt)
                rows.append(row_of(prompt))
                tracker.show("", len(rows), total)
        except TaskError as error:
            raise Failure(f"{file.name}: {error}") from error

    async def work() -> dataset_pb2.LoadDataResponse:
        async with client_of(wallet) as client:
            await _make(client, dataset, kind, task)
            with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as written:
                written.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                written.flush()
                return await load_file(client, dataset, Path(written.name))

    print_loaded(run(work()), output)


async def _make(client: Client, dataset: str, kind: str, task: TaskFile) -> None:
    """Make the dataset, where there is none yet."""
    try:
        await client.dataset.GetDataset(dataset_pb2.GetDatasetRequest(id=dataset))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        await client.dataset.CreateDataset(
            dataset_pb2.CreateDatasetRequest(
                id=dataset,
                kind=kind,
                title=task.name,
                description=f"lm-evaluation-harness's task {task.name}, "
                f"{task.shots.number} examples before each question.",
                metric=METRICS[MetricName(task.metric)],
                request_id=f"import-{uuid4()}",
            )
        )


def _given(data: list[str]) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for each in data:
        split, separator, name = each.partition("=")
        if not split or not separator or not name:
            raise Failure(f"--data {each}: write SPLIT=FILE, as in validation=dev.jsonl")
        files.setdefault(split, []).append(Path(name))
    return files

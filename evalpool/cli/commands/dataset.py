"""`evalpool dataset`: making, loading and showing datasets."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import grpc
import typer

from evalpool.cli.app import app, run
from evalpool.cli.asking import asking_fields
from evalpool.cli.failure import Failure
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet, client_of
from evalpool.cli.output import (
    Format,
    console,
    enum_text,
    moment,
    print_fields,
    print_json,
    print_table,
    short,
)
from evalpool.cli.progress import Tracker
from evalpool.client.datasets import FORMATS, load_file
from evalpool.dataset.v1 import dataset_pb2
from evalpool.errors import CallError

group = typer.Typer(help="Questions, runs and results.", no_args_is_help=True)
app.add_typer(group, name="dataset")

DatasetId = Annotated[str, typer.Argument(help="The dataset's id.")]


class EvaluatorName(StrEnum):
    """How an answer is obtained and scored."""

    DEFAULT = "default"
    LOGLIKELIHOOD = "loglikelihood"
    LETTER = "letter"
    EXACT_MATCH = "exact_match"
    JUDGE = "judge"


class MetricName(StrEnum):
    """Which choice the log-likelihood evaluator predicts."""

    ACC = "acc"
    ACC_NORM = "acc_norm"
    ACC_BYTES = "acc_bytes"


class FormatName(StrEnum):
    """The form of a file of questions."""

    JSON_LINES = "jsonl"
    JSON_ARRAY = "json"
    CSV = "csv"
    PARQUET = "parquet"


EVALUATORS = {
    EvaluatorName.DEFAULT: dataset_pb2.EVALUATOR_UNSPECIFIED,
    EvaluatorName.LOGLIKELIHOOD: dataset_pb2.EVALUATOR_LOGLIKELIHOOD,
    EvaluatorName.LETTER: dataset_pb2.EVALUATOR_LETTER,
    EvaluatorName.EXACT_MATCH: dataset_pb2.EVALUATOR_EXACT_MATCH,
    EvaluatorName.JUDGE: dataset_pb2.EVALUATOR_JUDGE,
}
METRICS = {
    MetricName.ACC: dataset_pb2.METRIC_ACC,
    MetricName.ACC_NORM: dataset_pb2.METRIC_ACC_NORM,
    MetricName.ACC_BYTES: dataset_pb2.METRIC_ACC_BYTES,
}
_FORMATS = {
    FormatName.JSON_LINES: dataset_pb2.DATA_FORMAT_JSON_LINES,
    FormatName.JSON_ARRAY: dataset_pb2.DATA_FORMAT_JSON_ARRAY,
    FormatName.CSV: dataset_pb2.DATA_FORMAT_CSV,
    FormatName.PARQUET: dataset_pb2.DATA_FORMAT_PARQUET,
}

Evaluator = Annotated[EvaluatorName, typer.Option(help="How answers are obtained.")]


@group.command()
def load(
    dataset: DatasetId,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The questions.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="The labels, where they lie apart, as in dev-labels.lst.",
        ),
    ] = None,
    form: Annotated[
        FormatName | None, typer.Option("--format", help="Default: by the file's ending.")
    ] = None,
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Load a file of questions as a new version."""
    size = file.stat().st_size
    data_format = _FORMATS[form] if form else FORMATS.get(file.suffix.lower())
    if data_format is None:
        raise Failure(
            f"the ending of {file.name} does not tell its form; give --format with one of "
            f"{', '.join(FormatName)}"
        )

    async def work() -> dataset_pb2.LoadDataResponse:
        quiet = output is Format.JSON
        with Tracker(f"loading {file.name}", quiet=quiet, in_bytes=True) as tracker:
            async with client_of(wallet) as client:
                return await load_file(
                    client,
                    dataset,
                    file,
                    data_format=data_format,
                    labels=labels,
                    progress=lambda sent: tracker.show("", sent, size),
                )

    try:
        response = run(work())
    except grpc.aio.AioRpcError as error:
        if output is Format.TABLE:
            print_bad_rows(CallError.of(error))
        raise
    print_loaded(response, output)


def print_loaded(response: dataset_pb2.LoadDataResponse, output: Format) -> None:
    """Say what has become of a file of questions."""
    if output is Format.JSON:
        print_json(response)
        return
    loaded = response.dataset
    what = "unchanged" if response.unchanged else "loaded"
    console.print(
        f"{what}: {loaded.question_count} questions of the kind {loaded.kind}, "
        f"version {short(loaded.version)}",
        highlight=False,
    )


@group.command("list")
def list_datasets(output: Output = Format.TABLE, wallet: Wallet = DEFAULT_WALLET) -> None:
    """List the datasets."""

    async def work() -> list[dataset_pb2.Dataset]:
        found: list[dataset_pb2.Dataset] = []
        async with client_of(wallet) as client:
            page = ""
            while True:
                response = await client.dataset.ListDatasets(
                    dataset_pb2.ListDatasetsRequest(page_token=page)
                )
                found.extend(response.datasets)
                page = response.next_page_token
                if not page:
                    return found

    datasets = run(work())
    if output is Format.JSON:
        print_json(datasets)
        return
    print_table(
        ["dataset", "title", "kind", ">questions", "evaluator", "version", "owner"],
        [
            (
                d.id,
                d.title,
                d.kind,
                d.question_count,
                enum_text(dataset_pb2.Evaluator.Name(d.evaluator), "EVALUATOR_"),
                short(d.version),
                short(d.owner),
            )
            for d in datasets
        ],
    )


@group.command()
def info(
    dataset: DatasetId, output: Output = Format.TABLE, wallet: Wallet = DEFAULT_WALLET
) -> None:
    """Show a dataset, without its questions."""

    async def work() -> dataset_pb2.Dataset:
        async with client_of(wallet) as client:
            response = await client.dataset.GetDataset(dataset_pb2.GetDatasetRequest(id=dataset))
            return response.dataset

    print_dataset(run(work()), output)


def print_bad_rows(error: CallError) -> None:
    """Show the rows that a load was refused for."""
    # A single one is in the error's sentence.
    if error.reason == "INVALID_ROWS" and len(error.violations) > 1:
        print_table(["place", "problem"], [(v.field, v.description) for v in error.violations])


def print_dataset(dataset: dataset_pb2.Dataset, output: Format) -> None:
    """Show a dataset."""
    if output is Format.JSON:
        print_json(dataset)
        return
    print_fields(
        {
            "dataset": dataset.id,
            "title": dataset.title,
            "description": dataset.description,
            "kind": dataset.kind,
            "evaluator": enum_text(dataset_pb2.Evaluator.Name(dataset.evaluator), "EVALUATOR_"),
            "evaluators": ", ".join(dataset.evaluators),
            "metric": dataset_pb2.Metric.Name(dataset.metric).removeprefix("METRIC_").lower()
            if EvaluatorName.LOGLIKELIHOOD in dataset.evaluators
            else "",
            "system prompt": dataset.system_prompt
            if set(dataset.evaluators) - {EvaluatorName.LOGLIKELIHOOD}
            else "",
            **asking_fields(dataset),
            "questions": dataset.question_count,
            "version": dataset.version,
            "license": dataset.license,
            "owner": dataset.owner,
            "made (UTC)": moment(dataset.create_time),
            "loaded (UTC)": moment(dataset.update_time),
        }
    )

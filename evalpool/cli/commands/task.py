"""`evalpool dataset import`: a task file of lm-evaluation-harness becomes a dataset."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Annotated
from uuid import uuid4

import grpc
import typer

from evalpool.cli.app import run
from evalpool.cli.commands.dataset import DatasetId, group, print_bad_rows, print_loaded
from evalpool.cli.failure import Failure
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet, client_of
from evalpool.cli.output import Format, errors, print_table
from evalpool.cli.progress import Tracker
from evalpool.client import Client
from evalpool.client.datasets import load_file
from evalpool.client.tasks import first_difference, task_dataset
from evalpool.dataset.v1 import dataset_pb2
from evalpool.errors import CallError
from evalpool.tasks import (
    MAX_TOKENS,
    Order,
    TaskError,
    TaskFile,
    Written,
    task_of,
    temperature_of,
    write_out,
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
            "times for several. Default: the files that the task names, or the hub.",
        ),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Examples before each question. Default: the task's.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Of the metrics that the task lists the only one. Default: all; the first decides."
        ),
    ] = None,
    chat_template: Annotated[
        bool,
        typer.Option("--chat-template", help="Prompts are users' turns, in the model's template."),
    ] = False,
    system_prompt: Annotated[
        str, typer.Option(metavar="TEXT|@FILE", help="Goes before the task's description.")
    ] = "",
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_TOKENS, help="Tokens of a reply. Default: the task's."),
    ] = None,
    temperature: Annotated[
        str | None, typer.Option(help="From 0 to 2. Default: the task's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the choice of tokens.")] = 0,
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Write a task's prompts out, and load them as a dataset."""
    order = Order(
        str(file),
        _given(data or []),
        shots=shots,
        metric=metric,
        chat=chat_template,
        system_prompt=_text_or_file(system_prompt),
    )
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as rows:
        try:
            task = _with_reply(task_of(order), max_tokens, temperature, seed)
            written = _write(order, rows, quiet=output is Format.JSON)
        except TaskError as error:
            raise Failure(f"{file.name}: {error}") from error
        if written.bad:
            _refuse_rows(file, written, output)
        request = task_dataset(dataset, task, written, chat=chat_template, seed=seed)
        try:
            response = run(_load(wallet, request, Path(rows.name)))
        except grpc.aio.AioRpcError as error:
            if output is Format.TABLE:
                print_bad_rows(CallError.of(error))
            raise
    print_loaded(response, output)


def _with_reply(
    task: TaskFile, max_tokens: int | None, temperature: str | None, seed: int
) -> TaskFile:
    """The task, with what was chosen for the replies in place of its own."""
    if task.generation is None:
        given = {"--max-tokens": max_tokens, "--temperature": temperature, "--seed": seed or None}
        for option, value in given.items():
            if value is not None:
                raise Failure(f"{option}: nothing is written under multiple_choice; leave it out")
        return task
    generation = task.generation
    if max_tokens is not None:
        generation = replace(generation, max_tokens=max_tokens)
    if temperature is not None:
        generation = replace(generation, temperature=temperature_of(temperature, "--temperature"))
    if generation.max_tokens > MAX_TOKENS:
        raise TaskError(
            f"generation_kwargs.max_gen_toks: {generation.max_tokens} is more than {MAX_TOKENS}; "
            "give --max-tokens"
        )
    return replace(task, generation=generation)


def _write(order: Order, rows: IO[bytes], *, quiet: bool) -> Written:
    name = Path(order.file).name
    with Tracker(f"writing {name} out", quiet=quiet) as tracker:
        written = write_out(order, rows, lambda done, total: tracker.show("", done, total))
    rows.flush()
    return written


def _refuse_rows(file: Path, written: Written, output: Format) -> None:
    """Tell of rows that the service would refuse, before anything is made there."""
    told = [
        (f"rows[{bad.number}]" + (f".{bad.field}" if bad.field else ""), bad.message)
        for bad in written.bad
    ]
    if output is Format.TABLE and len(told) > 1:
        print_table(["place", "problem"], told)
    place, message = told[0]
    noun = "problem" if written.bad_count == 1 else "problems"
    raise Failure(
        f"{file.name}: its questions have {written.bad_count} {noun}; nothing was loaded. "
        f"{place}: {message}"
    )


async def _load(
    wallet: str, request: dataset_pb2.CreateDatasetRequest, rows: Path
) -> dataset_pb2.LoadDataResponse:
    async with client_of(wallet) as client:
        made = await _make(client, request)
        try:
            return await load_file(client, request.id, rows)
        except grpc.aio.AioRpcError:
            if made:
                errors.print(
                    f"{request.id} was made, and has no questions yet; import it again to load them"
                )
            raise


async def _make(client: Client, request: dataset_pb2.CreateDatasetRequest) -> bool:
    """Make the dataset, where there is none yet.

    Returns:
        Whether there was none.

    Raises:
        Failure: There is one, of another kind or with other parameters.
    """
    try:
        found = await client.dataset.GetDataset(dataset_pb2.GetDatasetRequest(id=request.id))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        request.request_id = f"import-{uuid4()}"
        await client.dataset.CreateDataset(request)
        return True
    difference = first_difference(found.dataset, request)
    if difference:
        raise Failure(
            f"{request.id}: {difference}; a dataset keeps its parameters, so import under "
            "another id"
        )
    return False


def _text_or_file(given: str) -> str:
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise Failure(f"--system-prompt {given}: it cannot be read: {error}") from error


def _given(data: list[str]) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for each in data:
        split, separator, name = each.partition("=")
        if not split or not separator or not name:
            raise Failure(f"--data {each}: write SPLIT=FILE, as in validation=dev.jsonl")
        files.setdefault(split, []).append(name)
    return files

"""`evalpool documents`: sets of documents to search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalpool.cli.app import app, run
from evalpool.cli.failure import Failure
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet, client_of
from evalpool.cli.output import Format, console, enum_text, moment, print_json, print_table, short
from evalpool.cli.progress import Tracker
from evalpool.client.documents import make_set, read_documents
from evalpool.embedding.v1 import embedding_pb2

group = typer.Typer(help="Sets of documents to search.", no_args_is_help=True)
app.add_typer(group, name="documents")

Name = Annotated[str, typer.Argument(help="The set's name, of your choice.")]


@group.command()
def create(
    name: Name,
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help='JSON Lines, or one JSON array, of {"content": …, "meta": {…}}.',
        ),
    ],
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Make a set of documents and wait until it can be searched."""
    try:
        documents = read_documents(file)
    except ValueError as error:
        raise Failure(
            f'{file.name} is no list of {{"content": …, "meta": {{…}}}}: {error}'
        ) from error

    async def work() -> embedding_pb2.DocumentSet:
        quiet = output is Format.JSON
        last = embedding_pb2.DocumentSet()
        with Tracker(file.name, quiet=quiet) as tracker:
            async with client_of(wallet) as client:
                async for last in make_set(client, name, documents):
                    if last.digest:
                        tracker.show("embedding", last.embedded_count, len(documents))
                    else:
                        tracker.show("sending", last.document_count, len(documents))
        return last

    made = run(work())
    if made.state == embedding_pb2.DOCUMENT_SET_STATE_FAILED:
        raise Failure(
            f"the set {name} could not be embedded; the service's log says why, and the same "
            "command tries again",
            digest=made.digest,
        )
    if output is Format.JSON:
        print_json(made)
    else:
        state = enum_text(embedding_pb2.DocumentSetState.Name(made.state), "DOCUMENT_SET_STATE_")
        console.print(
            f"{made.hash}: {made.document_count} documents, {state}, digest {made.digest}",
            highlight=False,
        )


@group.command("list")
def list_sets(output: Output = Format.TABLE, wallet: Wallet = DEFAULT_WALLET) -> None:
    """List your own sets of documents."""

    async def work() -> list[embedding_pb2.DocumentSet]:
        found: list[embedding_pb2.DocumentSet] = []
        async with client_of(wallet) as client:
            page = ""
            while True:
                response = await client.embedding.ListDatasets(
                    embedding_pb2.ListDatasetsRequest(page_token=page)
                )
                found.extend(response.datasets)
                page = response.next_page_token
                if not page:
                    return found

    sets = run(work())
    if output is Format.JSON:
        print_json(sets)
        return
    print_table(
        ["name", "state", ">documents", "digest", "entered", "made (UTC)"],
        [
            (
                s.hash,
                enum_text(embedding_pb2.DocumentSetState.Name(s.state), "DOCUMENT_SET_STATE_"),
                s.document_count,
                short(s.digest),
                "yes" if s.entered else "",
                moment(s.create_time),
            )
            for s in sets
        ],
    )


@group.command()
def delete(name: Name, output: Output = Format.TABLE, wallet: Wallet = DEFAULT_WALLET) -> None:
    """Delete a set of documents that is not entered in a pool."""

    async def work() -> None:
        async with client_of(wallet) as client:
            await client.embedding.DeleteDataset(embedding_pb2.DeleteDatasetRequest(hash=name))

    run(work())
    if output is Format.JSON:
        print_json({"hash": name})
    else:
        console.print(f"deleted {name}")

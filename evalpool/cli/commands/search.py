"""`evalpool search`, and the documents that `evalpool chat` answers from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from evalpool.cli.app import app, run
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet, client_of
from evalpool.cli.output import Format, errors, print_json, print_table, printable
from evalpool.client import Client
from evalpool.embedding.v1 import embedding_pb2

_SHOWN_CHARACTERS = 80

TopK = Annotated[int, typer.Option(min=1, max=100, help="Documents at most.")]


@app.command()
def search(
    documents: Annotated[str, typer.Argument(help="The document set's name or digest.")],
    prompt: Annotated[str, typer.Argument(help="What to look for.")],
    top_k: TopK = 4,
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Find the documents nearest to a prompt."""

    async def work() -> list[embedding_pb2.SearchResult]:
        async with client_of(wallet) as client:
            return await nearest(client, documents, prompt, top_k)

    found = run(work())
    if output is Format.JSON:
        print_json(found)
        return
    print_table(
        [">similarity", "content", "meta"],
        [
            (
                f"{r.similarity:.3f}",
                r.content,
                " ".join(f"{key}={value}" for key, value in sorted(dict(r.meta).items())),
            )
            for r in found
        ],
    )


async def nearest(
    client: Client, documents: str, prompt: str, top_k: int
) -> list[embedding_pb2.SearchResult]:
    """The documents of a set that are nearest to a prompt, the nearest first."""
    response = await client.embedding.SearchPrompt(
        embedding_pb2.SearchPromptRequest(dataset_hash=documents, prompt=prompt, top_k=top_k)
    )
    return list(response.results)


def as_context(context: str, found: Sequence[embedding_pb2.SearchResult]) -> str:
    """What an answer is to be based on: the caller's own words first, then what was found."""
    return "\n\n".join(filter(None, (context, *(each.content for each in found))))


def show_used(found: Sequence[embedding_pb2.SearchResult]) -> None:
    """Show what an answer is based on, a line a document, beside standard output."""
    for each in found:
        line = printable(" ".join(each.content.split()))
        if len(line) > _SHOWN_CHARACTERS:
            line = f"{line[: _SHOWN_CHARACTERS - 1]}…"
        errors.print(f"{each.similarity:.3f}  {line}", style="dim", highlight=False)

"""`evalpool search`."""

from __future__ import annotations

from typing import Annotated

import typer

from evalpool.cli.app import app, run
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet, client_of
from evalpool.cli.output import Format, print_json, print_table
from evalpool.client import Client
from evalpool.embedding.v1 import embedding_pb2

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

"""`evalpool search`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import typer

from evalpool.cli.app import app, run
from evalpool.cli.failure import Failure
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet, client_of
from evalpool.cli.output import Format, print_json, print_table
from evalpool.client import Client
from evalpool.embedding.v1 import embedding_pb2

TopK = Annotated[int, typer.Option(min=1, max=100, help="Documents at most.")]
Filter = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="NAME=VALUE",
        help="Only documents whose meta has this value; several: all of them. A value is a number, "
        'true, false or a text; "4" in double quotes is the text.',
    ),
]

MetaValue: TypeAlias = str | float | bool
"""What a value of a document's meta may be."""


@app.command()
def search(
    documents: Annotated[str, typer.Argument(help="The document set's name or digest.")],
    prompt: Annotated[str, typer.Argument(help="What to look for.")],
    top_k: TopK = 4,
    where: Filter = None,
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Find the documents nearest to a prompt."""
    wanted = _meta(where or [])

    async def work() -> list[embedding_pb2.SearchResult]:
        async with client_of(wallet) as client:
            return await nearest(client, documents, prompt, top_k, wanted)

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
                " ".join(f"{key}={_shown(value)}" for key, value in sorted(r.meta.items())),
            )
            for r in found
        ],
    )


async def nearest(
    client: Client,
    documents: str,
    prompt: str,
    top_k: int,
    where: Mapping[str, MetaValue] | None = None,
) -> list[embedding_pb2.SearchResult]:
    """The documents of a set that are nearest to a prompt, the nearest first."""
    request = embedding_pb2.SearchPromptRequest(dataset_hash=documents, prompt=prompt, top_k=top_k)
    request.filter.update(where or {})
    response = await client.embedding.SearchPrompt(request)
    return list(response.results)


def _shown(value: Any) -> str:
    """A value of a document's meta, as `--filter` takes it but for quotes around a text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.17g}" if isinstance(value, float) else str(value)


def _meta(pairs: Sequence[str]) -> dict[str, MetaValue]:
    """What documents' meta has to have."""
    found: dict[str, MetaValue] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise Failure(f"--filter: {pair[:80]!r} is no NAME=VALUE; give one, such as title=two")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found[name] = value if isinstance(value, str | int | float) else text
    return found

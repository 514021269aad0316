"""Options that many commands share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer

from evalpool.cli.output import Format
from evalpool.client import Client
from evalpool.wallet import DEFAULT_NAME, Wallets

Output = Annotated[
    Format, typer.Option("--output", "-o", help="A table for people, or JSON for programs.")
]
Wallet = Annotated[
    str,
    typer.Option("--wallet", "-w", envvar="EVALPOOL_WALLET", help="The wallet that signs."),
]
RequestId = Annotated[
    str,
    typer.Option(
        "--request-id",
        help="An id of your choice: the same command again with the same id happens once.",
    ),
]

DEFAULT_WALLET = DEFAULT_NAME


@asynccontextmanager
async def client_of(wallet: str) -> AsyncIterator[Client]:
    """A client that a wallet signs for."""
    async with Client(Wallets().get(wallet)) as client:
        yield client

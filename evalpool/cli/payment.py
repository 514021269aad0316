"""Paying for inference from the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import grpc
import typer

from evalpool.cli.failure import Failure, failure_of
from evalpool.client import Client
from evalpool.client.payment import hold_for_inference

Pay = Annotated[
    str,
    typer.Option(help="Units to hold for each request, where the herd is paid; the rest returns."),
]
Hold = Annotated[
    str, typer.Option(help="A hold that was made for the router, to pay for one request.")
]
Multiplier = Annotated[
    str, typer.Option(help='Offer so many times the price to go first, such as "1.5".')
]


def one_way_to_pay(pay: str, hold: str) -> None:
    """Refuse options that contradict each other.

    Raises:
        Failure: A hold is to be made, and one is given.
    """
    if pay and hold:
        raise Failure("--pay makes a hold and --hold gives one; give one of them")


@asynccontextmanager
async def paying(client: Client, pay: str, hold: str) -> AsyncIterator[str]:
    """The id of the hold that pays for a request; empty where it costs nothing.

    Raises:
        Failure: The request was refused or failed; it names the hold, whose units may still be out.
    """
    made = await hold_for_inference(client, pay) if pay else hold
    try:
        yield made
    except (grpc.aio.AioRpcError, Failure) as error:
        failure = failure_of(error)
        if failure is None:
            raise
        named = {"hold": made} if made else {}
        raise Failure(
            failure.sentence + _remedy(failure, made),
            reason=failure.reason,
            status=failure.status,
            **failure.details,
            **named,
        ) from error


def _remedy(failure: Failure, hold: str) -> str:
    """What a sentence of the services does not say of paying with commands."""
    if hold and failure.details.get("code") == grpc.StatusCode.INVALID_ARGUMENT.name:
        # Most such requests are refused before their hold is taken up.
        return f" (hold {hold}; while that is open, --hold pays with it)"
    if hold:
        return f" (hold {hold})"
    price = failure.details.get("metadata", {}).get("price")
    return f"; --pay {price} does so" if price else ""

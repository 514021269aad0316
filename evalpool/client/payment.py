"""Holds that pay for inference."""

from __future__ import annotations

from uuid import uuid4

from google.protobuf.duration_pb2 import Duration

from evalpool.client.connection import Client
from evalpool.token.v1 import token_pb2

HOLD_SECONDS = 3600
"""How long a hold lasts unless told: longer than an answer may take by default."""


async def hold_for_inference(
    client: Client, quantity: str, *, seconds: int = HOLD_SECONDS, request_id: str = ""
) -> token_pb2.HeldUnits:
    """Set units aside for the router; it takes what a request costs, and the rest returns.

    Args:
        client: Who pays.
        quantity: Units at most.
        seconds: How long the hold lasts; a minute longer than the request may take at least.
        request_id: Chosen by the caller for repeats. Default: a new one.

    Returns:
        The hold, whose id goes into the field `hold` of one request.
    """
    response = await client.token.Hold(
        token_pb2.HoldRequest(
            recipient=await client.address("router"),
            quantity=quantity,
            time_to_live=Duration(seconds=seconds),
            request_id=request_id or f"inference-{uuid4()}",
        )
    )
    return response.hold

"""Holds that pay for inference."""

from __future__ import annotations

from uuid import uuid4

from evalpool.client.connection import Client
from evalpool.router.v1 import router_pb2
from evalpool.token.v1 import token_pb2


async def hold_for_inference(client: Client, quantity: str, *, request_id: str = "") -> str:
    """Set units aside for the router; it takes what a request costs, and the rest returns.

    The hold lasts as long as the router says that any request needs.

    Args:
        client: Who pays.
        quantity: Units at most.
        request_id: Chosen by the caller for repeats. Default: a new one.

    Returns:
        The hold's id, for the field `hold` of one request; empty where inference is free, and
        nothing is set aside.
    """
    pricing = await client.router.GetPricing(router_pb2.GetPricingRequest())
    if not pricing.paid:
        return ""
    response = await client.token.Hold(
        token_pb2.HoldRequest(
            recipient=await client.address("router"),
            quantity=quantity,
            time_to_live=pricing.hold_time,
            request_id=request_id or f"inference-{uuid4()}",
        )
    )
    return response.hold.id

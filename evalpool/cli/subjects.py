"""What users may call a model: its digest, its name in the catalogue, or a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

from evalpool.cli.failure import Failure
from evalpool.client import Client
from evalpool.client.models import sha256_of
from evalpool.router.v1 import router_pb2
from evalpool.values import InvalidValue, parse_digest


async def model_digest(client: Client, text: str) -> str:
    """The digest that a text stands for.

    Raises:
        grpc.aio.AioRpcError: The router knows no model of this name.
        Failure: The catalogue does not know the model's digest.
    """
    try:
        return parse_digest(text)
    except InvalidValue:
        path = Path(text)
    if path.is_file():
        return await asyncio.to_thread(sha256_of, path)
    response = await client.router.GetModel(router_pb2.GetModelRequest(model=text))
    if not response.model.digest:
        raise Failure(
            f"the catalogue has no digest of {response.model.name}; get the file by `evalpool "
            f"model pull {response.model.name}`, then upload it by `evalpool model push FILE`"
        )
    return response.model.digest

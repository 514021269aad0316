"""What users may call a party: one of their wallets, a service, or an address."""

from __future__ import annotations

from evalpool.cli.failure import Failure
from evalpool.client import Client
from evalpool.endpoints import PORTS
from evalpool.values import InvalidValue, parse_address
from evalpool.wallet import Wallets


async def party_address(client: Client, text: str) -> str:
    """The address that a text stands for.

    Raises:
        Failure: It is no service, no wallet and no address.
        grpc.aio.AioRpcError: The service that it names cannot be reached.
    """
    if text in PORTS:
        return await client.address(text)
    wallets = Wallets()
    if text in wallets.names():
        return wallets.get(text).address
    try:
        return parse_address(text)
    except InvalidValue as error:
        raise Failure(
            f'"{text}" is no address, no service, and none of your wallets; `evalpool wallet '
            "list` shows these"
        ) from error

"""The client: typed stubs of all six services behind one object, and the flows that users follow.

Example:
    >>> async with Client() as client:
    ...     response = await client.token.GetBalance(token_pb2.GetBalanceRequest())
"""

from evalpool.client.connection import Client
from evalpool.client.sync import SyncClient
from evalpool.errors import CallError

__all__ = ["CallError", "Client", "SyncClient"]

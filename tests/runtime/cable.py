"""A connection that can be cut off: nothing passes any more, and neither side is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Cable:
    """Passes on what one client and a server say, until it is cut.

    Attributes:
        endpoint: Where the client finds the server, host:port.
    """

    endpoint = ""

    def __init__(self) -> None:
        self._cut = False

    def cut(self) -> None:
        """Pass on nothing any more."""
        self._cut = True

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what one side says, until it ends the connection."""
        while words := await reader.read(65536):
            if not self._cut:
                writer.write(words)
        if not self._cut:
            writer.close()


@asynccontextmanager
async def cable_to(endpoint: str) -> AsyncIterator[Cable]:
    """Lay a cable to a server."""
    host, _, port = endpoint.rpartition(":")
    cable = Cable()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(
                cable.pass_on(reader, to_server[1]), cable.pass_on(to_server[0], writer)
            )
        finally:
            to_server[1].close()
            writer.close()

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
        cable.endpoint = "{}:{}".format(*server.sockets[0].getsockname())
        yield cable

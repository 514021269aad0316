"""A line over which a service is reached, and that a test can cut: TCP, passed on both ways."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class CutLine:
    """Passes bytes on to an endpoint until it is cut; after that it holds them, and nobody is told.

    That is how a network fails that loses packets: connections stay open and silent.

    Args:
        endpoint: Where it leads.

    Attributes:
        endpoint: Where it is reached.
    """

    def __init__(self, endpoint: str) -> None:
        self._host, _, port = endpoint.rpartition(":")
        self._port = int(port)
        self._on = asyncio.Event()
        self._back = asyncio.Event()
        self.mend()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.endpoint = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.endpoint = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._server is not None
        self.mend()
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Let nothing through from now on."""
        self._on.clear()
        self._back.clear()

    def silence(self) -> None:
        """Let no answer through from now on; what is sent still arrives."""
        self._back.clear()

    def mend(self) -> None:
        """Let everything through again, and first what was held."""
        self._on.set()
        self._back.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        on, back = writer, None
        self._writers.add(on)
        try:
            source, back = await asyncio.open_connection(self._host, self._port)
            self._writers.add(back)
            await asyncio.gather(
                self._pass_on(reader, back, self._on), self._pass_on(source, on, self._back)
            )
        except ConnectionError:
            # The service is not there; so the caller's connection ends.
            return
        finally:
            for each in (on, back):
                if each is not None:
                    self._writers.discard(each)
                    each.close()

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, whole: asyncio.Event
    ) -> None:
        with suppress(ConnectionError):
            while data := await source.read(2**16):
                await whole.wait()
                target.write(data)
                await target.drain()
        target.close()

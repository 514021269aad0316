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
        held_back: What has come back from there while the line was cut, let through since or not.
    """

    def __init__(self, endpoint: str) -> None:
        self._host, _, port = endpoint.rpartition(":")
        self._port = int(port)
        self._on = asyncio.Event()
        self._back = asyncio.Event()
        self.mend()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing: list[asyncio.Queue[bytes]] = []
        self._more = asyncio.Event()
        self.endpoint = ""
        self.held_back = b""

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

    async def holding_back(self, *pieces: bytes) -> None:
        """Wait until all these have come back while the line was cut."""
        while not all(piece in self.held_back for piece in pieces):
            self._more.clear()
            await self._more.wait()

    async def let_through(self) -> None:
        """Wait until all that was held has gone on, after the line was mended."""
        await asyncio.gather(*(passing.join() for passing in self._passing))

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
        passing: asyncio.Queue[bytes] = asyncio.Queue()
        self._passing.append(passing)
        await asyncio.gather(self._take(source, passing, whole), _give(passing, target, whole))

    async def _take(
        self, source: asyncio.StreamReader, passing: asyncio.Queue[bytes], whole: asyncio.Event
    ) -> None:
        """Take what comes, and in the end nothing, which is held like everything else."""
        data = b"?"
        while data:
            try:
                data = await source.read(2**16)
            except ConnectionError:
                data = b""
            if whole is self._back and not whole.is_set():
                self.held_back += data
                self._more.set()
            passing.put_nowait(data)


async def _give(
    passing: asyncio.Queue[bytes], target: asyncio.StreamWriter, whole: asyncio.Event
) -> None:
    data = b"?"
    while data:
        data = await passing.get()
        await whole.wait()
        # Who was to have it may have gone meanwhile.
        with suppress(ConnectionError):
            target.write(data)
            await target.drain()
        passing.task_done()
    target.close()

"""A real HTTP server on 127.0.0.1 that answers, or fails to, as a test tells it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

MODEL = "served"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its path, headers with small letters, and what its body says."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


Answer = Callable[[Asked, "Connection"], Awaitable[None]]


class Connection:
    """One request's connection, to be answered in pieces."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def whole(self, status: int, answer: object, **headers: str) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        await self._begin(status, {"content-length": str(len(content)), **told})
        await self.raw(content)

    async def stream(self, *events: object) -> None:
        """Begin a stream and send events, as JSON unless they are texts."""
        await self._begin(200, {"content-type": "text/event-stream"})
        for event in events:
            await self.event(event)

    async def event(self, event: object) -> None:
        data = event if isinstance(event, str) else json.dumps(event)
        await self.raw(f"data: {data}\n\n".encode())

    async def raw(self, content: bytes) -> None:
        self._writer.write(content)
        await self._writer.drain()

    async def closed(self) -> None:
        """Wait until the other side has closed the connection."""
        await self._reader.read()

    async def _begin(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Told", "connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        await self.raw("\r\n".join([*lines, "", ""]).encode())


@dataclass
class ScriptedServer:
    """Lists one model, and answers all else by `answer`.

    Attributes:
        url: Its base URL.
        answer: Called for each POST; the connection is closed after it.
        listed: What GET /v1/models answers: a status and a body.
        asked: The requests so far.
    """

    url: str = ""
    answer: Answer | None = None
    listed: tuple[int, object] = (200, {"data": [{"id": MODEL}]})
    asked: list[Asked] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split(" ")
            fields = (line.partition(":") for line in head[1:] if line)
            headers = {name.lower(): value.strip() for name, _, value in fields}
            content = await reader.readexactly(int(headers.get("content-length", "0")))
            asked = Asked(path, headers, json.loads(content or b"{}"))
            self.asked.append(asked)
            connection = Connection(reader, writer)
            if method == "GET":
                await connection.whole(*self.listed)
            else:
                assert self.answer is not None
                await self.answer(asked, connection)
        except ConnectionError:
            pass  # The engine has gone, as some tests want.
        finally:
            writer.close()


@asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    scripted.url = f"http://{host}:{port}/v1"
    async with server:
        yield scripted


def piece(text: str, reason: str | None = None) -> dict[str, Any]:
    """An event of `completions`."""
    return {"choices": [{"index": 0, "text": text, "finish_reason": reason}]}


def delta(text: str | None, reason: str | None = None) -> dict[str, Any]:
    """An event of `chat/completions`."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]}


def usage(prompt: int, text: int) -> dict[str, Any]:
    """The event that tells the counts."""
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": text}}

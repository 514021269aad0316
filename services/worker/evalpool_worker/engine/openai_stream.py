"""One answer of an OpenAI-compatible server, while it streams."""

from __future__ import annotations

import asyncio
import codecs
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx

from .errors import EngineError, NoModelLoadedError
from .openai_answer import DONE, Piece, parse_piece, refusal
from .server_events import EventParser
from .text_stream import TextStream

T = TypeVar("T")

UNLOADED = "The model was unloaded."
_MOST_REFUSAL_BYTES = 64 * 1024


class Patience:
    """Waits for a server: not for ever, and not beyond the model's unloading.

    Args:
        seconds: How long the server may be silent.
        unloaded: Set when the model goes.
    """

    def __init__(self, seconds: float, unloaded: asyncio.Event) -> None:
        self._seconds = seconds
        self._unloaded = unloaded

    async def wait(self, step: Awaitable[T]) -> T:
        """What the step gives, which is cancelled if nobody waits for it any more.

        Raises:
            NoModelLoadedError: The model was unloaded meanwhile.
            EngineError: The server was silent, could not be reached, or broke off.
        """
        answer = asyncio.ensure_future(step)
        gone = asyncio.ensure_future(self._unloaded.wait())
        try:
            await asyncio.wait(
                (answer, gone), timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if gone.done():
                raise NoModelLoadedError(UNLOADED)
            if not answer.done():
                raise EngineError(f"The server was silent for {self._seconds:g} s.")
            return answer.result()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise EngineError("The server can't be reached.") from error
        except httpx.HTTPError as error:
            raise EngineError("The server broke off.") from error
        finally:
            answer.cancel()
            gone.cancel()
            # The connection is closed once the cancelled step has ended.
            await asyncio.gather(answer, gone, return_exceptions=True)


class Answer:
    """The pieces of an answer whose beginning has come."""

    def __init__(self, response: httpx.Response, patience: Patience) -> None:
        self._bytes = response.aiter_bytes()
        self._patience = patience
        self._parser = EventParser()
        self._events: deque[str] = deque()
        self._broken: EngineError | None = None

    async def next(self) -> Piece | None:
        """The next piece; None at the end.

        Raises:
            NoModelLoadedError: The model was unloaded.
            EngineError: The server was silent, broke off, failed, or sent what can't be read.
        """
        # Silence is between events: bytes that only keep the connection alive do not end it.
        return await self._patience.wait(self._next())

    async def _next(self) -> Piece | None:
        while not self._events:
            if self._broken is not None:
                raise self._broken
            chunk = await anext(self._bytes, None)
            if chunk is None:
                return None
            try:
                self._events.extend(self._parser.feed(chunk))
            except EngineError as error:
                # What came before it counts.
                self._broken = error
        data = self._events.popleft()
        return None if data.strip() == DONE else parse_piece(data)


@asynccontextmanager
async def asked(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], patience: Patience
) -> AsyncIterator[Answer]:
    """Ask; the request is closed when the block is left, which is how a server is told to stop.

    Raises:
        NoModelLoadedError: The model was unloaded.
        EngineError: The server refuses, is silent, or can't be reached.
    """
    request = client.build_request("POST", path, json=body)
    response = await patience.wait(client.send(request, stream=True))
    try:
        if response.status_code != httpx.codes.OK:
            content = await patience.wait(_beginning(response))
            raise refusal(response.status_code, response.headers, content)
        yield Answer(response, patience)
    finally:
        await response.aclose()


class WholeText:
    """Joins characters that come in two events, and ends the text at a stop text."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stream = TextStream(stop)
        # JSON may write a character as two surrogates, and a server may send one of them alone.
        self._halves = codecs.getincrementaldecoder("utf-16-le")("replace")

    @property
    def stopped(self) -> bool:
        """Whether a stop text was met."""
        return self._stream.stopped

    def feed(self, text: str) -> str:
        """Add text; return what can be given out now."""
        whole = self._halves.decode(text.encode("utf-16-le", "surrogatepass"))
        return self._stream.feed(whole.encode())

    def finish(self) -> str:
        """The rest of the text."""
        return self._stream.finish()


async def _beginning(response: httpx.Response) -> bytes:
    content = b""
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > _MOST_REFUSAL_BYTES:
            break
    return content[:_MOST_REFUSAL_BYTES]

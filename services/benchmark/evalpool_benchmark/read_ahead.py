"""Reads a stream ahead of whoever works on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """A stream whose messages are read while those before them are worked on.

    Args:
        stream: The stream; it is closed at the end of the block.
        size: Messages read ahead at most.
    """

    def __init__(self, stream: AsyncGenerator[T, None], size: int) -> None:
        self._stream = stream
        self._queue: asyncio.Queue[T | None] = asyncio.Queue(size)
        self._ended = False

    async def __aenter__(self) -> Self:
        """Begin to read."""
        self._reader = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop reading, and close the stream."""
        self._reader.cancel()
        # The reader's last word may wait for room.
        while not self._queue.empty():
            self._queue.get_nowait()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def batch(self, seconds: float | None = None) -> list[T] | None:
        """Everything that has come since the last batch, at least one message.

        Args:
            seconds: How long to wait for the first one; None for as long as it takes.

        Returns:
            The messages; none where nothing came in time; None at the end of the stream.

        Raises:
            Exception: What the stream has ended with, after its last message.
        """
        if self._ended:
            await self._reader
            return None
        try:
            async with asyncio.timeout(seconds):
                came = [await self._queue.get()]
        except TimeoutError:
            return []
        while not self._queue.empty():
            came.append(self._queue.get_nowait())
        self._ended = came[-1] is None
        batch = [message for message in came if message is not None]
        return batch or await self.batch()

    async def _read(self) -> None:
        try:
            async with aclosing(self._stream) as messages:
                async for message in messages:
                    await self._queue.put(message)
        finally:
            await self._queue.put(None)

"""Grouping: what comes within a short time is handled together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def grouped(stream: AsyncIterator[T], seconds: float) -> AsyncIterator[list[T]]:
    """Yield a stream's items in groups, so that one commit serves many results.

    A group closes so many seconds after its first item. An error of the stream is raised after the
    items that came before it.

    Args:
        stream: What is grouped; it is read on while a group is handled.
        seconds: How long a group stays open.
    """
    queue: asyncio.Queue[tuple[T] | Exception | None] = asyncio.Queue()

    async def pump() -> None:
        try:
            async for item in stream:
                queue.put_nowait((item,))
        except Exception as error:
            queue.put_nowait(error)
        finally:
            # However the stream ends, also where its call was cancelled under it.
            queue.put_nowait(None)

    pumping = asyncio.create_task(pump())
    try:
        ended = False
        while not ended:
            group: list[T] = []
            event = await queue.get()
            deadline = asyncio.get_running_loop().time() + seconds
            while True:
                if event is None or isinstance(event, Exception):
                    ended = True
                    break
                group.append(event[0])
                try:
                    async with asyncio.timeout_at(deadline):
                        event = await queue.get()
                except TimeoutError:
                    break
            if group:
                yield group
            if isinstance(event, Exception):
                raise event
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)

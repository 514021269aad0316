"""What a task tells while it runs, for whoever streams it on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Relay(Generic[T]):
    """Carries what one task tells, in order, to one listener.

    Args:
        most: How much is handed over at a time.
    """

    def __init__(self, most: int = 1) -> None:
        self._most = most
        # None is the end.
        self._told: asyncio.Queue[T | None] = asyncio.Queue()

    def tell(self, item: T) -> None:
        """Tell the listener something."""
        self._told.put_nowait(item)

    async def during(self, work: Coroutine[Any, Any, None]) -> AsyncIterator[list[T]]:
        """Run work as a task, and yield what it tells; what waits together comes together.

        A listener that goes away before the end cancels the work, and waits until it has ended.

        Raises:
            Exception: What the work raised, after everything that it told.
        """
        task = asyncio.create_task(self._end_after(work))
        try:
            ended = False
            while not ended:
                items: list[T] = []
                item = await self._told.get()
                while item is not None:
                    items.append(item)
                    if len(items) == self._most or self._told.empty():
                        break
                    item = self._told.get_nowait()
                ended = item is None
                if items:
                    yield items
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _end_after(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            self._told.put_nowait(None)

"""Watches: streams that send what is new after a cursor, and wait for more."""

from __future__ import annotations

import asyncio


class Changes:
    """Wakes the watches of this process after a commit.

    Other replicas commit too, so a watch also looks again after `wait`'s seconds.
    """

    def __init__(self) -> None:
        self._version = 0
        self._event = asyncio.Event()

    @property
    def version(self) -> int:
        """Counts notifications. Read it before the database, hand it to `wait` afterwards."""
        return self._version

    def notify(self) -> None:
        """Wake everybody who waits. Call it on the event loop, after the commit."""
        self._version += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seen: int, seconds: float) -> bool:
        """Wait until there has been a notification after `seen`.

        Returns:
            True after a notification, False after that many seconds without one.
        """
        if self._version != seen:
            return True
        event = self._event
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True

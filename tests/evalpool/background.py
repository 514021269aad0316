"""What goes on beside a test that is not asynchronous itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Self


class Background:
    """An event loop of its own, in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """One that is stopped at the end."""
        made = cls()
        try:
            yield made
        finally:
            made._stop()

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Let a coroutine run."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Let a coroutine run, and wait for what it gives."""
        return self.begin(coroutine).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

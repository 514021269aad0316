"""A thin synchronous wrapper: the asynchronous client on an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from evalpool.client.connection import Client

T = TypeVar("T")


class SyncClient:
    """Runs calls of a `Client` from synchronous code.

    Example:
        >>> with SyncClient() as client:
        ...     client.run(lambda c: c.token.GetBalance(token_pb2.GetBalanceRequest()))

    Args:
        arguments: As for `Client`.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="evalpool-client", daemon=True
        )
        self._thread.start()

        async def make() -> Client:
            return Client(*arguments, **named)

        try:
            self._client = self._wait(make())
        except BaseException:
            self._end()
            raise

    def run(self, call: Callable[[Client], Awaitable[T]]) -> T:
        """Make one call and wait for its answer."""

        async def make() -> T:
            return await call(self._client)

        return self._wait(make())

    def iterate(self, call: Callable[[Client], AsyncIterator[T]]) -> Iterator[T]:
        """Make one call and yield its stream of answers."""

        async def start() -> tuple[AsyncIterator[T], AsyncIterator[T]]:
            stream = call(self._client)
            return stream, aiter(stream)

        async def end() -> None:
            # A stream that is left before its end would go on at the server.
            cancel = getattr(stream, "cancel", None)
            if cancel is not None:
                cancel()
            elif isinstance(stream, AsyncGenerator):
                await stream.aclose()

        stream, iterator = self._wait(start())
        try:
            while True:
                try:
                    yield self.run(lambda _: anext(iterator))
                except StopAsyncIteration:
                    return
        finally:
            if not self._loop.is_closed():
                self._wait(end())

    def close(self) -> None:
        """Close the channels and the event loop."""
        if self._loop.is_closed():
            return
        self._wait(self._client.close())
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _wait(self, awaitable: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(awaitable, self._loop).result()

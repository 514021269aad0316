"""Watches that go on: a stream that breaks is taken up again from its cursor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import grpc

T = TypeVar("T")

_RESUMABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
LONGEST_BACK_OFF = 5.0


async def resumed(
    open_stream: Callable[[int], AsyncIterator[T]],
    cursor_of: Callable[[T], int],
    *,
    after: int = 0,
    give_up_after: float = 60.0,
) -> AsyncIterator[T]:
    """Yield a watch's messages, opening it anew from the last cursor when it breaks.

    Args:
        open_stream: Opens the watch after a cursor.
        cursor_of: The cursor of a message.
        after: The cursor to begin after.
        give_up_after: Seconds without any message, while the service cannot be reached, after
            which the error is raised.

    Raises:
        grpc.aio.AioRpcError: The watch is refused, or cannot be taken up again.
    """
    loop = asyncio.get_running_loop()
    cursor = after
    back_off = 0.1
    last_message = loop.time()
    while True:
        try:
            async for message in open_stream(cursor):
                cursor = cursor_of(message)
                back_off, last_message = 0.1, loop.time()
                yield message
            return
        except grpc.aio.AioRpcError as error:
            unreachable_for = loop.time() - last_message
            if error.code() not in _RESUMABLE or unreachable_for > give_up_after:
                raise
        await asyncio.sleep(back_off)
        back_off = min(back_off * 2, LONGEST_BACK_OFF)

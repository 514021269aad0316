"""Watches that go on: a stream that breaks is taken up again from its cursor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import grpc

from evalpool.errors import CallError

T = TypeVar("T")

_RESUMABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
FIRST_BACK_OFF = 0.1
LONGEST_BACK_OFF = 5.0
LONGEST_CONNECT = 30.0
"""Seconds after which a stream that breaks must have been open: connecting gives up before."""


async def resumed(
    open_stream: Callable[[int], AsyncIterator[T]],
    cursor_of: Callable[[T], int],
    *,
    after: int = 0,
    cursor_field: str = "",
    give_up_after: float = 60.0,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[T]:
    """Yield a watch's messages, opening it anew from the last cursor when it breaks.

    Args:
        open_stream: Opens the watch after a cursor.
        cursor_of: The cursor of a message.
        after: The cursor to begin after.
        cursor_field: The request's field with the cursor. A service that refuses just that has not
            come as far, as one that was restored from a backup; the watch then begins anew with 0.
            Empty: such a refusal ends it.
        give_up_after: Seconds during which the service cannot be reached, after which the error
            is raised. A watch that was open and silent for long has not been out of reach.
        now: Seconds that never go back.
        sleep: Waits that many seconds.

    Raises:
        grpc.aio.AioRpcError: The watch is refused, or cannot be taken up again.
    """
    cursor = after
    back_off = FIRST_BACK_OFF
    failing_since: float | None = None
    while True:
        opened = now()
        try:
            async for message in open_stream(cursor):
                # Some messages have no place of their own, and count 0.
                cursor = max(cursor, cursor_of(message))
                back_off, failing_since = FIRST_BACK_OFF, None
                yield message
            return
        except grpc.aio.AioRpcError as error:
            if cursor and cursor_field and _refuses(error, cursor_field):
                cursor = 0
                continue
            if error.code() not in _RESUMABLE:
                raise
            if now() - opened > LONGEST_CONNECT:
                back_off, failing_since = FIRST_BACK_OFF, None
            if failing_since is None:
                failing_since = now()
            elif now() - failing_since > give_up_after:
                raise
        await sleep(back_off)
        back_off = min(back_off * 2, LONGEST_BACK_OFF)


def _refuses(error: grpc.aio.AioRpcError, field: str) -> bool:
    """Whether an error says that this field, and no other, is wrong."""
    return [violation.field for violation in CallError.of(error).violations] == [field]

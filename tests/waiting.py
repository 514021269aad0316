"""Waiting for what another service, or another task, will bring about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(get: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> T:
    """What a call gives, once a condition holds of it; the test's own time-out ends the wait."""
    while not holds(value := await get()):  # noqa: ASYNC110 - it is another service's state
        await asyncio.sleep(0.01)
    return value

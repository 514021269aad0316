"""A task's words reach their listener, in order and to the last."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from evalpool_worker.relay import Relay


async def heard(relay: Relay[int], work: Coroutine[Any, Any, None]) -> list[list[int]]:
    return [items async for items in relay.during(work)]


async def test_what_waits_together_comes_together_up_to_the_most() -> None:
    relay: Relay[int] = Relay(3)

    async def work() -> None:
        for number in range(7):
            relay.tell(number)
        await asyncio.sleep(0)

    assert await heard(relay, work()) == [[0, 1, 2], [3, 4, 5], [6]]


async def test_one_at_a_time_comes_one_at_a_time() -> None:
    relay: Relay[int] = Relay()

    async def work() -> None:
        relay.tell(1)
        relay.tell(2)

    assert await heard(relay, work()) == [[1], [2]]


async def test_work_that_tells_nothing_ends() -> None:
    async def work() -> None:
        return

    assert await heard(Relay(), work()) == []


async def test_a_failure_comes_after_everything_that_was_told() -> None:
    relay: Relay[int] = Relay(10)

    async def work() -> None:
        relay.tell(1)
        raise ValueError("no more")

    told: list[list[int]] = []

    async def listen() -> None:
        async for items in relay.during(work()):
            told.append(items)

    with pytest.raises(ValueError, match="no more"):
        await listen()
    assert told == [[1]]


async def test_a_listener_that_goes_away_ends_the_work() -> None:
    relay: Relay[int] = Relay()
    ended = asyncio.Event()

    async def work() -> None:
        try:
            relay.tell(1)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    async with aclosing(relay.during(work())) as told:  # type: ignore[type-var]
        async for _ in told:
            break
    assert ended.is_set()

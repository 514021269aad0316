"""Watches that are taken up again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from grpc import aio

from evalpool.client import watching
from evalpool.client.watching import resumed


class Times:
    """A clock that sleeping and streaming move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def read(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Script:
    """Streams that give some numbers, last some seconds, and end in some way."""

    def __init__(self, times: Times, *streams: tuple[list[int], float, grpc.StatusCode | None]):
        self._times = times
        self._streams = list(streams)
        self.opened: list[int] = []

    async def open(self, cursor: int) -> AsyncIterator[int]:
        self.opened.append(cursor)
        numbers, seconds, code = (
            self._streams.pop(0) if len(self._streams) > 1 else self._streams[0]
        )
        for number in numbers:
            yield number
        self._times.now += seconds
        if code is not None:
            raise aio.AioRpcError(code, aio.Metadata(), aio.Metadata())


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def read(times: Times, script: Script, *, after: int = 0) -> list[int]:
    stream = resumed(
        script.open, lambda number: number, after=after, now=times.read, sleep=times.sleep
    )
    return [number async for number in stream]


@pytest.mark.parametrize(
    "code",
    [UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED],
)
async def test_a_watch_that_breaks_goes_on_from_its_cursor(code: grpc.StatusCode) -> None:
    times = Times()
    script = Script(times, ([1, 2], 0, code), ([], 0, code), ([3], 0, None))
    assert await read(times, script) == [1, 2, 3]
    assert script.opened == [0, 2, 2]


async def test_a_message_without_a_cursor_does_not_set_the_watch_back() -> None:
    times = Times()
    script = Script(times, ([2, 0], 0, UNAVAILABLE), ([3], 0, None))
    assert await read(times, script) == [2, 0, 3]
    assert script.opened == [0, 2]


async def test_a_watch_begins_after_the_given_cursor() -> None:
    times = Times()
    script = Script(times, ([8], 0, None))
    assert await read(times, script, after=7) == [8]
    assert script.opened == [7]


async def test_a_refused_watch_is_not_tried_again() -> None:
    times = Times()
    script = Script(times, ([1], 0, grpc.StatusCode.PERMISSION_DENIED))
    with pytest.raises(aio.AioRpcError) as caught:
        await read(times, script)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert len(script.opened) == 1


async def test_a_service_out_of_reach_is_given_up_after_a_minute() -> None:
    times = Times()
    with pytest.raises(aio.AioRpcError):
        await read(times, Script(times, ([], 0.5, UNAVAILABLE)))
    assert 60 < times.now < 60 + watching.LONGEST_BACK_OFF + 1


async def test_pauses_grow_and_begin_anew_after_a_message() -> None:
    times = Times()
    broken: tuple[list[int], float, grpc.StatusCode | None] = ([], 0, UNAVAILABLE)
    script = Script(times, *[broken] * 8, ([1], 0, UNAVAILABLE), broken, ([2], 0, None))
    assert await read(times, script) == [1, 2]
    assert times.slept == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 0.1, 0.2])


async def test_a_watch_that_was_silent_for_hours_is_taken_up_again() -> None:
    """Silence is not being out of reach: an entry may wait in the queue for a day."""
    times = Times()
    script = Script(
        times,
        ([], 7200, UNAVAILABLE),
        ([], 7200, UNAVAILABLE),
        ([], 1, UNAVAILABLE),
        ([1], 0, None),
    )
    assert await read(times, script) == [1]


async def test_messages_count_as_being_reached() -> None:
    times = Times()
    rounds = [([n], 0.0, UNAVAILABLE) for n in range(1, 2001)]
    script = Script(times, *rounds, ([2001], 0, None))
    assert await read(times, script) == list(range(1, 2002))
    assert times.now > 60

"""Streams that are read ahead of whoever works on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from evalpool_benchmark.read_ahead import ReadAhead
from tests.waiting import until


class Source:
    """A stream that gives numbers as a test lets it."""

    def __init__(self) -> None:
        self.given: asyncio.Queue[int | Exception | None] = asyncio.Queue()
        self.read: list[int] = []
        self.closed = asyncio.Event()

    async def stream(self) -> AsyncGenerator[int, None]:
        try:
            while (each := await self.given.get()) is not None:
                if isinstance(each, Exception):
                    raise each
                self.read.append(each)
                yield each
        finally:
            self.closed.set()

    def give(self, *each: int | Exception | None) -> None:
        for one in each:
            self.given.put_nowait(one)


async def test_what_has_come_meanwhile_is_one_batch() -> None:
    source = Source()
    source.give(1)
    async with ReadAhead(source.stream(), 10) as numbers:
        assert await numbers.batch() == [1]
        source.give(2, 3, 4, None)
        await source.closed.wait()
        assert await numbers.batch() == [2, 3, 4]
        assert await numbers.batch() is None
        assert await numbers.batch() is None


async def test_a_batch_that_does_not_come_in_time_is_empty_and_loses_nothing() -> None:
    source = Source()
    async with ReadAhead(source.stream(), 10) as numbers:
        assert await numbers.batch(0.0) == []
        source.give(1)
        assert await numbers.batch() == [1]


async def test_an_error_comes_after_the_messages_before_it() -> None:
    source = Source()
    source.give(1, 2, OSError("cut off"))
    async with ReadAhead(source.stream(), 10) as numbers:
        await source.closed.wait()
        assert await numbers.batch() == [1, 2]
        with pytest.raises(OSError, match="cut off"):
            await numbers.batch()


async def test_no_more_is_read_ahead_than_there_is_room_for() -> None:
    source = Source()
    source.give(*range(1, 9))

    async def read() -> list[int]:
        return source.read

    async with ReadAhead(source.stream(), 3) as numbers:
        await until(read, lambda numbers: len(numbers) >= 4)
        assert source.read == [1, 2, 3, 4], "three in the queue, one on its way into it"
        assert source.given.qsize() == 4
        assert await numbers.batch() == [1, 2, 3]


async def test_leaving_in_the_middle_closes_the_stream() -> None:
    source = Source()
    source.give(*range(9))
    async with ReadAhead(source.stream(), 2) as numbers:
        await numbers.batch()
    assert source.closed.is_set()

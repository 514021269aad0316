"""Watches that are taken up again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc import aio
from grpc_status import rpc_status

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


Ending = grpc.StatusCode | aio.AioRpcError | None


class Script:
    """Streams that give some numbers, last some seconds, and end in some way."""

    def __init__(self, times: Times, *streams: tuple[list[int], float, Ending]):
        self._times = times
        self._streams = list(streams)
        self.opened: list[int] = []

    async def open(self, cursor: int) -> AsyncIterator[int]:
        self.opened.append(cursor)
        numbers, seconds, ending = (
            self._streams.pop(0) if len(self._streams) > 1 else self._streams[0]
        )
        for number in numbers:
            yield number
        self._times.now += seconds
        if isinstance(ending, aio.AioRpcError):
            raise ending
        if ending is not None:
            raise aio.AioRpcError(ending, aio.Metadata(), aio.Metadata())


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def refusal_of(*fields: str) -> aio.AioRpcError:
    """What a service says of fields that break their rules."""
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="as told")
    bad_request = error_details_pb2.BadRequest()
    for field in fields:
        bad_request.field_violations.add(field=field, description="as told")
    status.details.add().Pack(bad_request)
    trailers = aio.Metadata(*rpc_status.to_status(status).trailing_metadata)
    return aio.AioRpcError(
        grpc.StatusCode.INVALID_ARGUMENT, aio.Metadata(), trailers, details="as told"
    )


async def read(
    times: Times, script: Script, *, after: int = 0, cursor_field: str = ""
) -> list[int]:
    stream = resumed(
        script.open,
        lambda number: number,
        after=after,
        cursor_field=cursor_field,
        now=times.read,
        sleep=times.sleep,
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


async def test_a_service_that_was_set_back_is_watched_from_its_beginning() -> None:
    times = Times()
    script = Script(
        times,
        ([7, 9], 0, UNAVAILABLE),
        ([], 0, refusal_of("after")),
        ([2, 3], 0, UNAVAILABLE),
        ([4], 0, None),
    )
    assert await read(times, script, cursor_field="after") == [7, 9, 2, 3, 4]
    assert script.opened == [0, 9, 0, 3]


@pytest.mark.parametrize(
    ("refused", "after", "cursor_field"),
    [
        pytest.param(["other"], 7, "after", id="another field"),
        pytest.param(["after", "other"], 7, "after", id="another field too"),
        pytest.param(["after"], 0, "after", id="the beginning itself"),
        pytest.param(["after"], 7, "", id="a watch that does not ask for it"),
    ],
)
async def test_no_other_refusal_lets_a_watch_begin_anew(
    refused: list[str], after: int, cursor_field: str
) -> None:
    times = Times()
    script = Script(times, ([], 0, refusal_of(*refused)))
    with pytest.raises(aio.AioRpcError) as caught:
        await read(times, script, after=after, cursor_field=cursor_field)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert script.opened == [after]


async def test_a_service_out_of_reach_is_given_up_after_a_minute() -> None:
    times = Times()
    with pytest.raises(aio.AioRpcError):
        await read(times, Script(times, ([], 0.5, UNAVAILABLE)))
    assert 60 < times.now < 60 + watching.LONGEST_BACK_OFF + 1


async def test_pauses_grow_and_begin_anew_after_a_message() -> None:
    times = Times()
    broken: tuple[list[int], float, Ending] = ([], 0, UNAVAILABLE)
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

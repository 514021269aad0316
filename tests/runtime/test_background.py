"""Loops and sweeps."""

from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry

from evalpool_runtime import background
from evalpool_runtime.background import Background


@pytest.fixture(autouse=True)
def _no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FIRST_BACK_OFF", 0.0)


@pytest.fixture
def stopping() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def work(stopping: asyncio.Event, registry: CollectorRegistry) -> Background:
    return Background(stopping, registry)


def failures(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value("evalpool_background_failures_total", {"name": name})


async def test_a_loop_that_raises_is_begun_again_and_counted(
    work: Background, registry: CollectorRegistry
) -> None:
    begun = []
    lasting = asyncio.Event()

    async def loop() -> None:
        begun.append(1)
        if len(begun) < 4:
            raise ValueError("broken")
        lasting.set()
        await asyncio.Event().wait()

    work.spawn("loop", loop)
    await lasting.wait()
    await work.stop()

    assert failures(registry, "loop") == 3


async def test_a_loop_whose_call_was_cancelled_is_begun_again(
    work: Background, registry: CollectorRegistry
) -> None:
    """As by a channel that was closed, or an executor that was shut down."""
    begun = []
    lasting = asyncio.Event()

    async def loop() -> None:
        begun.append(1)
        if len(begun) == 1:
            call = asyncio.ensure_future(asyncio.Event().wait())
            call.cancel()
            await call
        lasting.set()
        await asyncio.Event().wait()

    work.spawn("loop", loop)
    await lasting.wait()
    await work.stop()

    assert failures(registry, "loop") == 1
    assert not work._tasks


async def test_a_loop_that_returns_is_done(work: Background, registry: CollectorRegistry) -> None:
    begun = []

    async def loop() -> None:
        begun.append(1)

    work.spawn("loop", loop)
    while work._tasks:  # noqa: ASYNC110
        await asyncio.sleep(0)

    assert begun == [1]
    assert failures(registry, "loop") is None


async def test_one_loop_that_raises_leaves_the_others_alone(work: Background) -> None:
    ended = asyncio.Event()

    async def broken() -> None:
        raise ValueError("broken")

    async def sound() -> None:
        await ended.wait()

    work.spawn("broken", broken)
    work.spawn("sound", sound)
    for _ in range(10):
        await asyncio.sleep(0)

    assert {task.get_name() for task in work._tasks} == {"broken", "sound"}
    await work.stop()


async def test_a_sweep_comes_again_and_again_also_after_it_raised(
    work: Background, registry: CollectorRegistry
) -> None:
    swept = []
    enough = asyncio.Event()
    before = time.time()

    async def sweep() -> None:
        swept.append(1)
        if len(swept) == 2:
            raise OSError("the database is gone")
        if len(swept) == 5:
            enough.set()

    work.every("sweep", 0.0, sweep)
    await enough.wait()
    await work.stop()

    assert failures(registry, "sweep") == 1
    last = registry.get_sample_value(
        "evalpool_sweep_last_success_timestamp_seconds", {"name": "sweep"}
    )
    assert last is not None
    assert last >= before


async def test_the_stop_cancels_loops_and_waits_for_their_end(work: Background) -> None:
    begun, ended = asyncio.Event(), []

    async def loop() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    work.spawn("loop", loop)
    await begun.wait()
    await work.stop()

    assert ended == [1]
    assert not work._tasks


async def test_a_sweep_that_waits_is_over_when_the_service_stops(
    work: Background, stopping: asyncio.Event
) -> None:
    swept = asyncio.Event()

    async def sweep() -> None:
        swept.set()

    work.every("sweep", 3600.0, sweep)
    await swept.wait()
    stopping.set()
    await asyncio.gather(*work._tasks)


async def test_a_loop_that_raises_while_the_service_stops_is_not_begun_again(
    work: Background, stopping: asyncio.Event
) -> None:
    begun = []

    async def loop() -> None:
        begun.append(1)
        stopping.set()
        raise ValueError("the channel is closed")

    work.spawn("loop", loop)
    await asyncio.gather(*work._tasks)

    assert begun == [1]


async def test_the_back_off_grows_to_its_bound(
    work: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "FIRST_BACK_OFF", 0.2)
    pauses: list[float] = []
    enough = asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 9:
            enough.set()
        await asyncio.sleep(0)

    monkeypatch.setattr(work, "pause", pause)

    async def loop() -> None:
        raise ValueError("broken")

    work.spawn("loop", loop)
    await enough.wait()
    await work.stop()

    assert pauses[:9] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0]

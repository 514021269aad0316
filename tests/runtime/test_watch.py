"""Wake-ups of watches."""

from __future__ import annotations

import asyncio

from evalpool_runtime.watch import Changes

EVER = 3600.0


async def test_a_notification_wakes_everybody_who_waits() -> None:
    changes = Changes()
    waiting = [asyncio.create_task(changes.wait(changes.version, EVER)) for _ in range(3)]
    await asyncio.sleep(0)

    changes.notify()

    assert await asyncio.gather(*waiting) == [True, True, True]


async def test_a_notification_between_the_look_and_the_wait_is_not_missed() -> None:
    changes = Changes()
    seen = changes.version
    changes.notify()
    assert await changes.wait(seen, EVER)


async def test_a_notification_that_was_seen_does_not_wake_again() -> None:
    changes = Changes()
    changes.notify()
    assert not await changes.wait(changes.version, 0)


async def test_without_a_notification_the_wait_ends_by_itself() -> None:
    changes = Changes()
    assert not await changes.wait(changes.version, 0.001)


async def test_each_notification_wakes_anew() -> None:
    changes = Changes()
    for _ in range(3):
        seen = changes.version
        waiting = asyncio.create_task(changes.wait(seen, EVER))
        await asyncio.sleep(0)
        changes.notify()
        assert await waiting
        assert changes.version == seen + 1

"""Which holds pay, and what is decided about them, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from evalpool_router import charges
from evalpool_router.hold import Charge, HeldUnits
from tests.conftest import OpenDatabase

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOLD = HeldUnits("h", "payer", "router", 10**38, True, NOW)


async def test_a_request_that_is_gone_costs_nothing(
    database: OpenDatabase,
) -> None:
    opened = await database("evalpool_router.migrations")
    assert await opened.write(lambda tx: charges.take_up(tx, HOLD, NOW))
    assert await opened.read(charges.due) == []
    later = NOW + timedelta(seconds=1)
    assert await opened.write(lambda tx: charges.let_go(tx, NOW, ())) == 0
    assert await opened.write(lambda tx: charges.let_go(tx, later, ("h",))) == 0
    assert await opened.read(charges.due) == []
    assert await opened.write(lambda tx: charges.let_go(tx, later, ("other",))) == 1
    # What was decided first stands.
    await opened.write(lambda tx: charges.decide(tx, "h", 5))
    assert await opened.read(charges.due) == [Charge("h", 0)]
    await opened.write(lambda tx: charges.settled(tx, "h", NOW))
    assert await opened.read(charges.due) == []
    assert not await opened.write(lambda tx: charges.take_up(tx, HOLD, NOW))


async def test_only_what_has_long_been_settled_is_forgotten(database: OpenDatabase) -> None:
    opened = await database("evalpool_router.migrations")
    later = NOW + timedelta(days=1)
    for name in ("open", "decided", "settled early", "settled late"):
        hold = HeldUnits(name, "payer", "router", 7, True, NOW)
        await opened.write(partial(charges.take_up, hold=hold, now=NOW))
        if name != "open":
            await opened.write(partial(charges.decide, hold=name, quantity=5))
    await opened.write(lambda tx: charges.settled(tx, "settled early", NOW))
    await opened.write(lambda tx: charges.settled(tx, "settled late", later))

    assert await opened.write(lambda tx: charges.forget(tx, later)) == 1

    assert await opened.read(charges.due) == [Charge("decided", 5)]
    await opened.write(lambda tx: charges.let_go(tx, later, ()))
    assert await opened.read(charges.due) == [Charge("decided", 5), Charge("open", 0)]
    assert await opened.write(lambda tx: charges.forget(tx, later + timedelta(days=1))) == 1

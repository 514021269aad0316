from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from evalpool_router.last_multiplier import LastMultiplier
from evalpool_router.store import keep_last_multiplier, read_last_multiplier
from tests.conftest import OpenDatabase


@dataclass
class Dispatching:
    """A herd that has dispatched a request with this multiplier."""

    last_multiplier: Fraction = Fraction(1)


async def test_the_newest_multiplier_is_kept_exactly(database: OpenDatabase) -> None:
    opened = await database("evalpool_router.migrations")
    herd = Dispatching()
    kept = LastMultiplier(opened, herd)
    for offered in ("2500000.5", "1.000000001", "900000000"):
        herd.last_multiplier = Fraction(offered)
        await kept.keep()
        assert await opened.read(read_last_multiplier) == Fraction(offered)


async def test_a_multiplier_that_has_not_changed_is_not_written_again(
    database: OpenDatabase,
) -> None:
    opened = await database("evalpool_router.migrations")
    herd = Dispatching()
    kept = LastMultiplier(opened, herd)
    herd.last_multiplier = Fraction(3)
    await kept.keep()
    await opened.write(lambda tx: keep_last_multiplier(tx, Fraction(7)))
    await kept.keep()
    assert await opened.read(read_last_multiplier) == 7

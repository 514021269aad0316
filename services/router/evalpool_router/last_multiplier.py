"""Keeps the multiplier of the request that was dispatched last, over restarts.

It tells callers what others offer. It is written now and then, not with each dispatch: a commit
would cost more than the dispatch, and a killed router forgets only the newest seconds of it.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import Protocol

from evalpool_router.store import keep_last_multiplier
from evalpool_runtime.database import Database


class Dispatcher(Protocol):
    """Who sends requests out."""

    @property
    def last_multiplier(self) -> Fraction:
        """The multiplier of the request that was dispatched last."""
        ...


class LastMultiplier:
    """Writes the newest multiplier where it has changed.

    Args:
        database: Where it is kept.
        dispatcher: Knows it.
    """

    def __init__(self, database: Database, dispatcher: Dispatcher) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._kept = dispatcher.last_multiplier

    async def keep(self) -> None:
        """Write it, if it is another than was written last."""
        newest = self._dispatcher.last_multiplier
        if newest != self._kept:
            await self._database.write(partial(keep_last_multiplier, multiplier=newest))
            self._kept = newest

"""The worker's slots: how many requests it takes at a time. It has the last word on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from evalpool_runtime.errors import ResourceExhausted, reasons

RETRY_SECONDS = 0.2


class Slots:
    """Counts requests under way.

    Attributes:
        total: How many it takes at a time.
        busy: How many there are.
        waiting: How many of them have no model yet.

    Args:
        total: How many it takes at a time.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.busy = 0
        self.waiting = 0

    @contextmanager
    def taken(self) -> Iterator[Slot]:
        """Take one for the length of a block.

        Raises:
            ResourceExhausted: All are taken. Nothing has been tried.
        """
        if self.busy >= self.total:
            raise ResourceExhausted(
                reasons.ERROR_REASON_WORKER_BUSY,
                f"all of the worker's {self.total} slots are taken; try again soon",
                retry_after=RETRY_SECONDS,
            )
        self.busy += 1
        slot = Slot(self)
        try:
            yield slot
        finally:
            slot.has_model()
            self.busy -= 1


class Slot:
    """A request under way.

    Args:
        slots: Where it is counted.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._waits = True
        slots.waiting += 1

    def has_model(self) -> None:
        """Its model is there: it no longer waits for that; harmless more than once."""
        self._slots.waiting -= self._waits
        self._waits = False

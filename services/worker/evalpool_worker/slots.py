"""The worker's slots: how many requests it takes at a time. It has the last word on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from evalpool_runtime.errors import ResourceExhausted, reasons

RETRY_SECONDS = 0.2


class Slots:
    """Counts requests under way.

    Args:
        total: How many it takes at a time.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.busy = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
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
        try:
            yield
        finally:
            self.busy -= 1

"""Clocks, injected wherever time decides something."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What time it is."""

    def now(self) -> datetime:
        """The present moment, in UTC, to compare with stored times."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, to measure spans within this process."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present moment, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds of the machine's monotonic clock."""
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to, for tests and replays."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = timedelta()

    def now(self) -> datetime:
        """The start and everything advanced since."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Seconds advanced since the start."""
        return self._elapsed.total_seconds()

    def advance(self, by: timedelta) -> None:
        """Move on."""
        self._elapsed += by

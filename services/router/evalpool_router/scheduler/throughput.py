"""How much was done over the last minute."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

WINDOW_SECONDS = 60


class Rates(NamedTuple):
    """How fast work gets done.

    Attributes:
        units: Units finished a second.
        tokens: Tokens computed a second, for what was finished.
    """

    units: float
    tokens: float


class Throughput:
    """Counts units and tokens by the second of the clock: the present one and the 59 before it.

    Args:
        now: The present second, of a clock that never goes back.
    """

    def __init__(self, now: float) -> None:
        self._begun = now
        self._seconds: deque[list[int]] = deque()
        self._units = 0
        self._tokens = 0

    def add(self, units: int, tokens: int, now: float) -> None:
        """Count what has just been done."""
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            last = self._seconds[-1]
            last[1] += units
            last[2] += tokens
        else:
            self._forget(second)
            self._seconds.append([second, units, tokens])
        self._units += units
        self._tokens += tokens

    def per_second(self, now: float) -> Rates:
        """What was counted, divided by the time in which it was."""
        self._forget(int(now))
        span = self.window(now)
        return Rates(self._units / span, self._tokens / span)

    def window(self, now: float) -> float:
        """Seconds that rates are taken over: 59 to 60, or since the beginning, at least 1."""
        return min(max(now - self._begun, 1.0), now - int(now) + WINDOW_SECONDS - 1)

    def _forget(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - WINDOW_SECONDS:
            _, units, tokens = self._seconds.popleft()
            self._units -= units
            self._tokens -= tokens

"""What was done over the last minute."""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 60


class Throughput:
    """Counts units and tokens in a sliding window of whole seconds.

    Args:
        now: The present second, of a clock that never goes back.
    """

    def __init__(self, now: float) -> None:
        self._begun = now
        self._seconds: deque[tuple[int, int, int]] = deque()
        self._units = 0
        self._tokens = 0

    def add(self, units: int, tokens: int, now: float) -> None:
        """Count what has just been done."""
        self._forget(now)
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            _, had_units, had_tokens = self._seconds.pop()
            self._seconds.append((second, had_units + units, had_tokens + tokens))
        else:
            self._seconds.append((second, units, tokens))
        self._units += units
        self._tokens += tokens

    def per_second(self, now: float) -> tuple[float, float]:
        """Units and tokens a second, over the window or since the beginning where that is later."""
        self._forget(now)
        span = min(max(now - self._begun, 1.0), float(WINDOW_SECONDS))
        return self._units / span, self._tokens / span

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] <= now - WINDOW_SECONDS:
            _, units, tokens = self._seconds.popleft()
            self._units -= units
            self._tokens -= tokens

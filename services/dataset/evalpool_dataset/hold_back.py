"""Holding back: while the herd sends work away nothing new is begun, longer each time. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class HoldBack:
    """How long nothing new is to be begun. Times are seconds of any clock that never goes back.

    Attributes:
        first: Seconds after the first time that work was sent away; doubles with each further one.
        longest: Seconds at most.
    """

    first: float = 1.0
    longest: float = 30.0
    _times: int = 0
    _until: float = 0.0

    def sent_away(self, now: float, retry_after: float | None) -> None:
        """Hold back: for the seconds that the herd names, or else for longer than the last time.

        What was under way together and is sent away together is one time.
        """
        if not retry_after:
            if now < self._until:
                return
            # Beyond 2^32 it is the longest anyway; the bound keeps the power small.
            retry_after = min(self.longest, self.first * (1 << min(self._times, 32)))
            self._times += 1
        self._until = max(self._until, now + retry_after)

    def answered(self) -> None:
        """The herd works: the next time that it sends work away is a first one."""
        self._times = 0

    def seconds(self, now: float) -> float:
        """How long nothing is to be begun from now on; 0 for not at all."""
        return max(0.0, self._until - now)

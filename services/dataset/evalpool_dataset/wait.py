"""What a call to the herd waits for, told once it lasts and when it is over. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from evalpool_dataset.outcome import Waiting
from evalpool_dataset.problem import Problem

TOLD_AFTER_SECONDS = 5.0
"""A worker that starts, or starts anew, is no wait to speak of."""


@dataclass(slots=True)
class Wait:
    """A call's wait. Times are seconds of any clock that never goes back."""

    _since: float | None = None
    _told: Problem | None = None

    def heard(self, problem: Problem | None, now: float) -> Waiting | None:
        """Take in how the call stands.

        Args:
            problem: What keeps its questions waiting; None for nothing.
            now: The present second.

        Returns:
            What is to be told of that; None where nothing has changed.
        """
        if problem is None or not problem.waits:
            self._since = lasting = None
        else:
            self._since = now if self._since is None else self._since
            lasting = problem if now - self._since >= TOLD_AFTER_SECONDS else self._told
        if lasting == self._told:
            return None
        self._told = lasting
        return Waiting(lasting)

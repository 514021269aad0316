"""A request on its way through the scheduler."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from evalpool_router.scheduler.work import Request

MOST_DOUBLINGS = 10.0
"""Multipliers above 1,024 weigh no more: nobody waits for ever behind those who can pay."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A request and how far it is.

    Attributes:
        request: What is wanted.
        submitted: When it came.
        order: Its number among those that came.
        mark: Units that had been put into its lane before it.
        pending: Units that have not been sent out, in order.
        returned: Units that came back from lost workers, and go first.
        unfinished: Units that are neither done nor given up.
        dispatches: Dispatches under way.
        losses: For units that were at lost workers: how often.
        sent: Whether a part of the answer has gone to the caller.
        entry: The version of its entry in the queue; older entries are void.
    """

    request: Request
    submitted: float
    order: int
    mark: int = 0
    pending: deque[int] = field(default_factory=deque)
    returned: deque[int] = field(default_factory=deque)
    unfinished: int = 0
    dispatches: set[int] = field(default_factory=set)
    losses: dict[int, int] = field(default_factory=dict)
    sent: bool = False
    entry: int = 0

    @property
    def waiting(self) -> int:
        """Units in the queue."""
        return len(self.pending) + len(self.returned)

    @property
    def doublings(self) -> float:
        """The multiplier's weight: its logarithm to base 2, within bounds."""
        return min(max(math.log2(self.request.multiplier), 0.0), MOST_DOUBLINGS)

    def next_unit(self) -> int:
        """The unit that would be sent out next."""
        return self.returned[0] if self.returned else self.pending[0]

    def take_unit(self) -> int:
        """Take that unit out of the queue."""
        return self.returned.popleft() if self.returned else self.pending.popleft()

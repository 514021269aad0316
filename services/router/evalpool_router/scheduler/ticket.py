"""A request on its way through the scheduler."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from evalpool_router.scheduler.work import Incarnation, Request, Requirement
from evalpool_runtime.errors import DomainError

MOST_DOUBLINGS = 10.0
"""Multipliers above 1,024 weigh no more: nobody waits for ever behind those who can pay."""

NOWHERE: frozenset[Incarnation] = frozenset()
ANY_WORKER = Requirement()


@dataclass(slots=True, eq=False)
class Portion:
    """Units of a request that wait together: the same workers may take them.

    Attributes:
        ticket: The request.
        failed_at: Workers at which these units failed and others of the request did not.
        returned: Whether they came back from a worker, so that they go first.
        units: The units, in order.
        requirement: What a worker must have for them, as they stand in the queue.
        entry: The version of their entry in the queue; older entries are void.
    """

    ticket: Ticket
    failed_at: frozenset[Incarnation] = NOWHERE
    returned: bool = False
    units: deque[int] = field(default_factory=deque)
    requirement: Requirement = ANY_WORKER
    entry: int = 0

    @property
    def shunned(self) -> frozenset[Incarnation]:
        """Workers that have failed them."""
        return self.ticket.failed_at | self.failed_at


@dataclass(slots=True, eq=False)
class Ticket:
    """A request and how far it is.

    Attributes:
        request: What is wanted.
        submitted: When it came.
        order: Its number among those that came.
        mark: Units that had been put into its lane before it.
        pending: Units that have not been sent out.
        returned: Units that came back, by the workers at which just these failed.
        unfinished: Units that are neither done nor given up.
        dispatches: Dispatches under way.
        losses: For units that were at lost workers: how often.
        sent: Whether a part of the answer has gone to the caller.
        proven: Whether a worker has answered a unit: the request can be answered.
        troubles: Errors of workers that failed the request, the newest last.
        unit_troubles: The same for single units.
        spent: Whether so many workers have failed it that no other is to try.
    """

    request: Request
    submitted: float
    order: int
    mark: int = 0
    pending: Portion = field(init=False)
    returned: dict[frozenset[Incarnation], Portion] = field(default_factory=dict)
    unfinished: int = field(init=False)
    dispatches: set[int] = field(default_factory=set)
    losses: dict[int, int] = field(default_factory=dict)
    sent: bool = False
    proven: bool = False
    troubles: dict[Incarnation, DomainError] = field(default_factory=dict)
    unit_troubles: dict[int, dict[Incarnation, DomainError]] = field(default_factory=dict)
    spent: bool = False

    def __post_init__(self) -> None:
        self.pending = Portion(self)
        self.pending.units.extend(range(len(self.request.tokens)))
        self.unfinished = len(self.pending.units)

    @property
    def failed_at(self) -> frozenset[Incarnation]:
        """Workers that failed the request."""
        return frozenset(self.troubles) if self.troubles else NOWHERE

    @property
    def troubled(self) -> bool:
        """Whether a worker failed it, or a unit of it."""
        return bool(self.troubles or self.unit_troubles)

    @property
    def waiting(self) -> int:
        """Units in the queue."""
        return sum(len(portion.units) for portion in self.portions())

    @property
    def doublings(self) -> float:
        """The multiplier's weight: its logarithm to base 2, within bounds."""
        return min(max(math.log2(self.request.multiplier), 0.0), MOST_DOUBLINGS)

    def portions(self) -> Iterator[Portion]:
        """Those that wait."""
        for portion in (self.pending, *self.returned.values()):
            if portion.units:
                yield portion

    def portion_of(self, unit: int) -> Portion:
        """The portion that a unit belongs to when it comes back."""
        troubles = self.unit_troubles.get(unit)
        failed_at = frozenset(troubles) if troubles else NOWHERE
        portion = self.returned.get(failed_at)
        if portion is None:
            portion = self.returned[failed_at] = Portion(self, failed_at, returned=True)
        return portion

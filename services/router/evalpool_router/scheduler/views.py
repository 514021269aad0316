"""How workers and models stand, for whoever asks or measures."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from evalpool_router.scheduler.tally import Totals
from evalpool_router.scheduler.throughput import Rates
from evalpool_router.scheduler.work import Kind


class WorkerState(IntEnum):
    """Whether a worker gets new work. The numbers are those of the contract's WorkerState."""

    READY = 1
    RESTING = 2
    DRAINING = 3


@dataclass(frozen=True, slots=True)
class WorkerView:
    """How a worker stands.

    Attributes:
        address: The worker's address.
        generation: The number of its registration.
        kinds: The work that it takes.
        slots: Requests that it takes at a time.
        busy_slots: Requests that it is at.
        running: Units that it is at.
        outstanding_tokens: Estimated tokens of what it has not finished.
        models: Digests of the models that it has loaded.
        draining: Whether it gets nothing new.
        resting_seconds: For how long it gets nothing, after a refusal or a failure.
        failures: Times in a row that it failed, more of it with one model counted once.
        lease_until: When its lease lapses, in the scheduler's seconds.
        completed: Units that it has finished since it registered.
        failed: Dispatches that failed at it since then.
        rates: How fast it finishes units, over the last minute or since it registered.
    """

    address: str
    generation: int
    kinds: frozenset[Kind]
    slots: int
    busy_slots: int
    running: int
    outstanding_tokens: int
    models: frozenset[str]
    draining: bool
    resting_seconds: float
    failures: int
    lease_until: float
    completed: int
    failed: int
    rates: Rates

    @property
    def state(self) -> WorkerState:
        """Whether it gets new work."""
        if self.draining:
            return WorkerState.DRAINING
        return WorkerState.RESTING if self.resting_seconds else WorkerState.READY

    @property
    def free_slots(self) -> int:
        """Requests that it could take now."""
        return max(self.slots - self.busy_slots, 0) if self.state is WorkerState.READY else 0


@dataclass(frozen=True, slots=True)
class ModelView:
    """How the work for a model stands.

    Attributes:
        digest: The model's digest.
        totals: Its units.
        rates: How fast they get done.
        resting_seconds: For how long it is not tried, because workers were lost over it.
    """

    digest: str
    totals: Totals
    rates: Rates
    resting_seconds: float

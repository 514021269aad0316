"""A worker of the herd, and a dispatch that it is at."""

from __future__ import annotations

from dataclasses import dataclass, field

from evalpool_router.scheduler.memory import ENDLESS
from evalpool_router.scheduler.rules import Rules
from evalpool_router.scheduler.throughput import Throughput
from evalpool_router.scheduler.ticket import Ticket
from evalpool_router.scheduler.views import WorkerView
from evalpool_router.scheduler.work import (
    Incarnation,
    Lane,
    Registration,
    Requirement,
)


@dataclass(slots=True, eq=False)
class Placement:
    """A dispatch under way.

    Attributes:
        id: Its number.
        ticket: The request that it serves.
        worker: Where it is.
        outstanding: Its units that are not done, in order.
        tokens: Estimated tokens of those.
        accepted: Whether the worker has begun with it.
        failed: Whether the worker has failed units of it.
        suspected: Where the worker has broken off: whether this dispatch's model may be why.
    """

    id: int
    ticket: Ticket
    worker: Worker
    outstanding: dict[int, None]
    tokens: int
    accepted: bool = False
    failed: bool = False
    suspected: bool | None = None


@dataclass(slots=True, eq=False)
class Worker:
    """A worker of the herd.

    Attributes:
        registration: What it says of itself; `models` there is as of its registration.
        models: Digests of the models that it has loaded.
        lease_until: When its lease lapses.
        progress_at: When it last showed that it gets on, or last had nothing to do.
        draining: Whether the operator lets it drain.
        throughput: What it has finished of late.
        computed_tokens: What its last heartbeat told.
        placements: What it is at.
        tokens: Estimated tokens of that, not finished.
        packages: Packages of questions among that.
        leaving: Whether it says itself that it takes nothing new.
        resting_until: Until when it gets nothing new.
        refusals: Times in a row that it refused work as busy.
        misses: Times in a row that it could not be reached.
        failures: Times in a row that it failed; more of it with one model counts once.
        failed_models: The models that it failed with since it last succeeded.
        completed: Units that it has finished.
        failed: Dispatches that failed at it.
        idle_number: Grows with each dispatch that ends anywhere: the least has been idle longest.
        version: Of its entries in the heaps; others are void.
    """

    registration: Registration
    models: frozenset[str]
    lease_until: float
    progress_at: float
    draining: bool
    throughput: Throughput
    computed_tokens: int = -1
    placements: dict[int, Placement] = field(default_factory=dict)
    tokens: int = 0
    packages: int = 0
    leaving: bool = False
    resting_until: float = 0.0
    refusals: int = 0
    misses: int = 0
    failures: int = 0
    failed_models: set[str] = field(default_factory=set)
    completed: int = 0
    failed: int = 0
    idle_number: int = 0
    version: int = 0

    @property
    def address(self) -> str:
        """The worker's address."""
        return self.registration.address

    @property
    def incarnation(self) -> Incarnation:
        """The worker since its registration."""
        return Incarnation(self.registration.address, self.registration.generation)

    @property
    def memory(self) -> int:
        """Bytes that it gives to models."""
        return self.registration.memory_bytes or ENDLESS

    @property
    def only_models(self) -> frozenset[str]:
        """Digests of the models that it is dedicated to; empty where it is to none."""
        return self.registration.only_models

    @property
    def ready_models(self) -> frozenset[str]:
        """Digests of the models that it has loaded and takes."""
        return self.models & self.only_models if self.only_models else self.models

    def takes(self, model: str, size: int) -> bool:
        """Whether it takes a model of so many bytes, busy or not."""
        return model in self.only_models if self.only_models else self.memory >= size

    def takes_new(self) -> bool:
        """Whether it is to get new work, as far as it and the operator say."""
        return not (self.leaving or self.draining)

    def is_free(self, now: float) -> bool:
        """Whether it can take anything now."""
        return (
            len(self.placements) < self.registration.slots
            and self.resting_until <= now
            and self.takes_new()
        )

    def suits(self, lane: Lane, rules: Rules) -> bool:
        """Whether it can take work of a lane, where it is free."""
        return lane.kind in self.registration.kinds and (
            not lane.scoring or self.packages < rules.packages_per_worker
        )

    def meets(self, requirement: Requirement) -> bool:
        """Whether it has what some work requires."""
        return self.takes(requirement.model, requirement.memory) and not (
            requirement.shunned and self.incarnation in requirement.shunned
        )

    def view(self, now: float) -> WorkerView:
        """How it stands."""
        return WorkerView(
            address=self.address,
            generation=self.registration.generation,
            kinds=self.registration.kinds,
            slots=self.registration.slots,
            busy_slots=len(self.placements),
            running=sum(len(each.outstanding) for each in self.placements.values()),
            outstanding_tokens=self.tokens,
            models=self.models,
            draining=not self.takes_new(),
            resting_seconds=max(self.resting_until - now, 0.0),
            failures=self.failures,
            lease_until=self.lease_until,
            completed=self.completed,
            failed=self.failed,
            rates=self.throughput.per_second(now),
        )

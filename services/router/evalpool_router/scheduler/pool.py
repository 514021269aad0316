"""The workers, and which of them is to take the next work.

The choice is the worker with the fewest outstanding tokens, then one that has the model loaded,
then the one that has been idle longest. Heaps by lane, and by lane and model, hold the workers that
have room; a worker's change voids its entries by a new version, so a choice costs a logarithm and
not a walk over all workers.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from evalpool_router.scheduler.rules import Rules
from evalpool_router.scheduler.ticket import Ticket
from evalpool_router.scheduler.work import Kind, Lane, Registration, WorkerView

_Entry = tuple[int, int, int, str]


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
    """

    id: int
    ticket: Ticket
    worker: Worker
    outstanding: dict[int, None]
    tokens: int
    accepted: bool = False


@dataclass(slots=True, eq=False)
class Worker:
    """A worker of the herd.

    Attributes:
        registration: What it says of itself; `models` there is as of its registration.
        models: Digests of the models that it has loaded.
        lease_until: When its lease lapses.
        progress_at: When it last showed that it gets on, or last had nothing to do.
        computed_tokens: What its last heartbeat told.
        placements: What it is at.
        tokens: Estimated tokens of that, not finished.
        packages: Packages of questions among that.
        leaving: Whether it says itself that it takes nothing new.
        draining: Whether the operator lets it drain.
        resting_until: Until when it gets nothing new.
        refusals: Times in a row that it refused work as busy.
        failures: Times in a row that it failed.
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
    computed_tokens: int = -1
    placements: dict[int, Placement] = field(default_factory=dict)
    tokens: int = 0
    packages: int = 0
    leaving: bool = False
    resting_until: float = 0.0
    refusals: int = 0
    failures: int = 0
    completed: int = 0
    failed: int = 0
    idle_number: int = 0
    version: int = 0

    @property
    def address(self) -> str:
        """The worker's address."""
        return self.registration.address

    def takes_new(self) -> bool:
        """Whether it is to get new work, as far as it and the operator say."""
        return not (self.leaving or self.draining)

    def has_room(self, lane: Lane, now: float, rules: Rules) -> bool:
        """Whether it can take work of a lane now."""
        return (
            self.takes_new()
            and self.resting_until <= now
            and len(self.placements) < self.registration.slots
            and (not lane.scoring or self.packages < rules.packages_per_worker)
            and lane.kind in self.registration.kinds
        )

    def view(self, now: float) -> WorkerView:
        """How it stands."""
        return WorkerView(
            address=self.address,
            generation=self.registration.generation,
            kinds=self.registration.kinds,
            slots=self.registration.slots,
            busy_slots=len(self.placements),
            outstanding_tokens=self.tokens,
            models=self.models,
            draining=not self.takes_new(),
            resting=self.resting_until > now,
            lease_until=self.lease_until,
            completed=self.completed,
            failed=self.failed,
        )


class Pool:
    """The workers with a lease.

    Args:
        lanes: The lanes there are.
        rules: What the scheduler goes by.
    """

    def __init__(self, lanes: tuple[Lane, ...], rules: Rules) -> None:
        self._lanes = lanes
        self._rules = rules
        self._workers: dict[str, Worker] = {}
        self._heaps: dict[tuple[Lane, str], list[_Entry]] = {}
        self._able: Counter[Kind] = Counter()
        self._counted: dict[str, frozenset[Kind]] = {}
        self._rests: list[tuple[float, str]] = []
        self._versions: Iterator[int] = itertools.count(1)
        self._idle_numbers: Iterator[int] = itertools.count(1)

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def get(self, address: str) -> Worker | None:
        """The worker with this address, if it has a lease."""
        return self._workers.get(address)

    def able(self, kind: Kind) -> int:
        """Workers that take new work of a kind, busy or not."""
        return self._able[kind]

    def add(self, worker: Worker, now: float) -> None:
        """Enter a worker; one with its address must have been removed."""
        worker.idle_number = next(self._idle_numbers)
        self._workers[worker.address] = worker
        if worker.resting_until > now:
            heapq.heappush(self._rests, (worker.resting_until, worker.address))
        self.changed(worker, now)

    def remove(self, worker: Worker) -> None:
        """Take a worker out."""
        del self._workers[worker.address]
        worker.version = next(self._versions)
        self._count(worker.address, frozenset())

    def place(self, placement: Placement, now: float) -> None:
        """Count a dispatch at its worker."""
        worker = placement.worker
        if not worker.placements:
            worker.progress_at = now
        worker.placements[placement.id] = placement
        worker.tokens += placement.tokens
        worker.packages += placement.ticket.request.scoring
        self.changed(worker, now)

    def release(self, placement: Placement, now: float) -> None:
        """No longer count a dispatch: the one place where load goes away with it."""
        worker = placement.worker
        del worker.placements[placement.id]
        worker.tokens -= placement.tokens
        worker.packages -= placement.ticket.request.scoring
        worker.idle_number = next(self._idle_numbers)
        self.changed(worker, now)

    def rest(self, worker: Worker, seconds: float, now: float) -> None:
        """Give a worker nothing new for a while."""
        worker.resting_until = max(worker.resting_until, now + seconds)
        heapq.heappush(self._rests, (worker.resting_until, worker.address))
        self.changed(worker, now)

    def rested(self, now: float) -> None:
        """Let workers whose rest is over have work again."""
        while self._rests and self._rests[0][0] <= now:
            _, address = heapq.heappop(self._rests)
            worker = self._workers.get(address)
            if worker is not None:
                self.changed(worker, now)

    def next_rested(self) -> float | None:
        """When the next rest may be over."""
        return self._rests[0][0] if self._rests else None

    def changed(self, worker: Worker, now: float) -> None:
        """Bring a worker's entries up to date after any change of it."""
        if self._workers.get(worker.address) is not worker:
            return
        worker.version = next(self._versions)
        kinds = worker.registration.kinds if worker.takes_new() else frozenset[Kind]()
        self._count(worker.address, kinds)
        entry = (worker.tokens, worker.idle_number, worker.version, worker.address)
        for lane in self._lanes:
            if worker.has_room(lane, now, self._rules):
                self._push((lane, ""), entry)
                for model in worker.models:
                    self._push((lane, model), entry)

    def has_room(self, lane: Lane) -> bool:
        """Whether any worker can take work of a lane now."""
        return self._first(lane, "") is not None

    def choose(self, lane: Lane, model: str) -> Worker | None:
        """The worker that is to take the next work of a lane; None where none has room."""
        least = self._first(lane, "")
        if least is None:
            return None
        loaded = self._first(lane, model)
        entry = loaded if loaded is not None and loaded[0] <= least[0] else least
        return self._workers[entry[3]]

    def _first(self, lane: Lane, model: str) -> _Entry | None:
        heap = self._heaps.get((lane, model))
        if heap is None:
            return None
        while heap:
            if self._is_current(heap[0]):
                return heap[0]
            heapq.heappop(heap)
        del self._heaps[lane, model]
        return None

    def _push(self, name: tuple[Lane, str], entry: _Entry) -> None:
        heap = self._heaps.setdefault(name, [])
        heapq.heappush(heap, entry)
        # Void entries that never come to the top must not pile up.
        if len(heap) > 4 * len(self._workers) + 64:
            heap[:] = [entry for entry in heap if self._is_current(entry)]
            heapq.heapify(heap)

    def _is_current(self, entry: _Entry) -> bool:
        worker = self._workers.get(entry[3])
        return worker is not None and worker.version == entry[2]

    def _count(self, address: str, kinds: frozenset[Kind]) -> None:
        before = self._counted.pop(address, frozenset[Kind]())
        self._able.subtract(before)
        self._able.update(kinds)
        if kinds:
            self._counted[address] = kinds

"""The workers with a lease, and which of them is to take the next work.

The choice is the worker with the fewest outstanding tokens, then one that has the model loaded,
then the one that has been idle longest. Heaps hold the workers that have room: by lane and grade of
memory, or by lane and model those that are dedicated to models; and by lane and loaded model. A
worker's change voids its entries by a new version, so a choice costs a logarithm and not a walk
over all workers.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator

from evalpool_router.scheduler.abilities import NOTHING, Abilities, Ability
from evalpool_router.scheduler.memory import NOBODY, Memories, grade
from evalpool_router.scheduler.rules import Rules
from evalpool_router.scheduler.work import Incarnation, Kind, Lane, Registration, Requirement
from evalpool_router.scheduler.worker import Placement, Worker

_Entry = tuple[int, int, int, str]
_Heap = list[_Entry]


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
        self._free: dict[Lane, dict[int, _Heap]] = {lane: {} for lane in lanes}
        self._dedicated: dict[tuple[Lane, str], _Heap] = {}
        self._loaded: dict[tuple[Lane, str], _Heap] = {}
        self._memories = Memories()
        self._dedicated_to: Counter[str] = Counter()
        self._abilities = Abilities()
        self._drained: dict[str, Worker] = {}
        self._rests: list[tuple[float, str]] = []
        self._versions: Iterator[int] = itertools.count(1)
        self._idle_numbers: Iterator[int] = itertools.count(1)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def __len__(self) -> int:
        return len(self._workers)

    def get(self, address: str) -> Worker | None:
        """The worker with this address, if it has a lease."""
        return self._workers.get(address)

    # Who could

    @property
    def revision(self) -> int:
        """Grows when a worker becomes able to take new work, or no longer is."""
        return self._abilities.revision

    def any_takes(self, kind: Kind) -> bool:
        """Whether a worker takes new work of a kind, for whatever model."""
        return self._abilities.any_takes(kind)

    def able(
        self, kind: Kind, model: str, size: int, shunned: frozenset[Incarnation] = frozenset()
    ) -> int:
        """Workers that take new work of a kind for a model, busy or not.

        Args:
            kind: The kind of work.
            model: The model's digest.
            size: The model's bytes.
            shunned: Workers that do not count.
        """
        able = self._abilities.count(kind, model, size)
        for incarnation in shunned:
            worker = self._workers.get(incarnation.address)
            if worker is not None and worker.incarnation == incarnation:
                able -= kind in _ability(worker).kinds and worker.takes(model, size)
        return able

    def any_drained(self, kind: Kind) -> bool:
        """Whether a worker would take new work of a kind if the operator let it."""
        return any(kind in worker.registration.kinds for worker in self._drained.values())

    def any_drained_takes(self, kind: Kind, model: str, size: int) -> bool:
        """Whether one would take new work of a kind for a model if the operator let it."""
        return any(
            kind in worker.registration.kinds and worker.takes(model, size)
            for worker in self._drained.values()
        )

    def largest_memory(self, kind: Kind) -> int:
        """The most bytes that a worker which takes any model for a kind gives; 0 without one."""
        return self._abilities.largest_memory(kind)

    def require(self, model: str, size: int, shunned: frozenset[Incarnation]) -> Requirement:
        """What work for a model requires of a worker, as the herd stands.

        Args:
            model: The model's digest.
            size: The model's bytes.
            shunned: Workers that are not to have it.
        """
        dedicated = model if self._dedicated_to[model] else ""
        return Requirement(self._memories.least_holding(size), shunned, dedicated)

    # Who comes and goes

    def add(self, worker: Worker, now: float) -> None:
        """Enter a worker; one with its address must have been removed."""
        worker.idle_number = next(self._idle_numbers)
        self._workers[worker.address] = worker
        self._enter(worker)
        if worker.resting_until > now:
            heapq.heappush(self._rests, (worker.resting_until, worker.address))
        self.changed(worker, now)

    def renew(self, worker: Worker, registration: Registration, now: float) -> None:
        """Take in what a worker says of itself now."""
        self._withdraw(worker)
        worker.registration = registration
        self._enter(worker)
        self.changed(worker, now)

    def remove(self, worker: Worker) -> None:
        """Take a worker out."""
        del self._workers[worker.address]
        self._drained.pop(worker.address, None)
        self._withdraw(worker)
        worker.version = next(self._versions)
        self._abilities.note(worker.address, NOTHING)

    # Load

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
        self._abilities.note(worker.address, _ability(worker))
        if worker.draining and not worker.leaving:
            self._drained[worker.address] = worker
        else:
            self._drained.pop(worker.address, None)
        if not worker.is_free(now):
            return
        entry = (worker.tokens, worker.idle_number, worker.version, worker.address)
        of = grade(worker.memory)
        for lane in self._lanes:
            if worker.suits(lane, self._rules):
                for model in worker.only_models:
                    self._push(self._dedicated.setdefault((lane, model), []), entry)
                if not worker.only_models:
                    self._push(self._free[lane].setdefault(of, []), entry)
                for model in worker.ready_models:
                    self._push(self._loaded.setdefault((lane, model), []), entry)

    # The choice

    def has_room(self, lane: Lane, requirement: Requirement) -> bool:
        """Whether any worker can take work of a lane, with what it requires, now."""
        return self._least_loaded(lane, requirement) is not None

    def choose(self, lane: Lane, model: str, requirement: Requirement) -> Worker | None:
        """The worker that is to take the next work of a lane; None where none has room."""
        least = self._least_loaded(lane, requirement)
        if least is None:
            return None
        heap = self._loaded.get((lane, model))
        if heap is None:
            return self._workers[least[3]]
        loaded = self._first(heap, requirement)
        if not heap:
            del self._loaded[lane, model]
        entry = loaded if loaded is not None and loaded[0] <= least[0] else least
        return self._workers[entry[3]]

    def _least_loaded(self, lane: Lane, requirement: Requirement) -> _Entry | None:
        dedicated = self._dedicated.get((lane, requirement.model))
        least = None if dedicated is None else self._first(dedicated, requirement)
        if requirement.memory == NOBODY:
            return least
        lowest = grade(requirement.memory)
        for of, heap in self._free[lane].items():
            if of >= lowest:
                entry = self._first(heap, requirement)
                if entry is not None and (least is None or entry < least):
                    least = entry
        return least

    def _first(self, heap: _Heap, requirement: Requirement) -> _Entry | None:
        """The first entry of a worker that meets a requirement; void ones before it go."""
        passed: _Heap = []
        found = None
        while heap:
            if not self._is_current(heap[0]):
                heapq.heappop(heap)
            elif self._workers[heap[0][3]].meets(requirement):
                found = heap[0]
                break
            else:
                # There are few: the grade leaves out most that lack memory, and few are shunned.
                passed.append(heapq.heappop(heap))
        for entry in passed:
            heapq.heappush(heap, entry)
        return found

    def _push(self, heap: _Heap, entry: _Entry) -> None:
        heapq.heappush(heap, entry)
        # Void entries that never come to the top must not pile up.
        if len(heap) > 4 * len(self._workers) + 64:
            heap[:] = [entry for entry in heap if self._is_current(entry)]
            heapq.heapify(heap)

    def _is_current(self, entry: _Entry) -> bool:
        worker = self._workers.get(entry[3])
        return worker is not None and worker.version == entry[2]

    def _enter(self, worker: Worker) -> None:
        """Count what a worker is there for, whether it takes new work or not."""
        if worker.only_models:
            self._dedicated_to.update(worker.only_models)
        else:
            self._memories.add(worker.memory)

    def _withdraw(self, worker: Worker) -> None:
        """No longer count it."""
        if not worker.only_models:
            self._memories.remove(worker.memory)
        for model in worker.only_models:
            self._dedicated_to[model] -= 1
            if not self._dedicated_to[model]:
                del self._dedicated_to[model]
                for lane in self._lanes:
                    self._dedicated.pop((lane, model), None)


def _ability(worker: Worker) -> Ability:
    if not worker.takes_new():
        return NOTHING
    registration = worker.registration
    return Ability(registration.kinds, worker.memory, registration.only_models)

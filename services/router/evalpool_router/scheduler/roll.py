"""The roll of workers: they come, keep their leases, rest, drain and go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from evalpool_router.scheduler import refusals
from evalpool_router.scheduler.board import Board
from evalpool_router.scheduler.recovery import Recovery
from evalpool_router.scheduler.throughput import Throughput
from evalpool_router.scheduler.work import Kind, Registration
from evalpool_router.scheduler.worker import Worker


class Rest(StrEnum):
    """Why a worker is given a rest."""

    BUSY = "busy"
    FAILURE = "failure"
    UNREACHABLE = "unreachable"


class Departure(StrEnum):
    """Why a worker no longer has a lease."""

    LEFT = "left"
    """It said good-bye."""
    REPLACED = "replaced"
    """It has registered under the next generation."""
    DISMISSED = "dismissed"
    """The operator no longer admits it for any of its work."""
    LAPSED = "lapsed"
    """Its heart has stopped beating."""
    HUNG = "hung"
    """It was busy and got nowhere."""


@dataclass(frozen=True, slots=True)
class _Past:
    """What a new start of a worker does not undo, until it succeeds.

    Attributes:
        failures: Times in a row that it failed.
        resting_until: Until when it rests for the last of them.
    """

    failures: int = 0
    resting_until: float = 0.0


class Roll:
    """Keeps the pool's workers.

    Attributes:
        rests: How often workers were given a rest, by why.
        departures: How often workers went, by why.
        taken_back: Dispatches with something undone that were taken back from workers that went.

    Args:
        board: What there is.
        recovery: Gives back what a worker that goes was at.
    """

    def __init__(self, board: Board, recovery: Recovery) -> None:
        self.rests: Counter[Rest] = Counter()
        self.departures: Counter[Departure] = Counter()
        self.taken_back = 0
        self._board = board
        self._recovery = recovery
        self._pasts: dict[str, _Past] = {}

    def register(self, registration: Registration, now: float) -> None:
        """Enter a worker, or enter it anew: what it was at under an older generation is lost."""
        board = self._board
        lease_until = now + board.rules.lease_seconds
        known = board.pool.get(registration.address)
        if known is not None and known.registration.generation == registration.generation:
            known.models = _models(registration.models)
            known.lease_until = lease_until
            known.draining = registration.draining
            board.pool.renew(known, registration, now)
            board.worker_joined(known)
        else:
            if known is not None:
                # A new start in the midst of work is likely to follow a crash.
                at_work = any(placement.accepted for placement in known.placements.values())
                self.remove(known, now, Departure.REPLACED, blamed=at_work)
            past = self._pasts.get(registration.address, _Past())
            worker = Worker(
                registration,
                models=_models(registration.models),
                lease_until=lease_until,
                progress_at=now,
                draining=registration.draining,
                throughput=Throughput(now),
                failures=past.failures,
                resting_until=past.resting_until,
            )
            board.pool.add(worker, now)
            board.worker_joined(worker)

    def heartbeat(
        self,
        address: str,
        generation: int,
        now: float,
        *,
        models: Iterable[str],
        computed_tokens: int,
        leaving: bool,
    ) -> None:
        """Keep a worker's lease.

        Raises:
            Aborted: The worker has no lease, or a newer one.
        """
        worker = self.leased(address, generation)
        worker.lease_until = now + self._board.rules.lease_seconds
        if computed_tokens != worker.computed_tokens:
            worker.computed_tokens = computed_tokens
            worker.progress_at = now
        loaded = _models(models)
        if loaded != worker.models or leaving != worker.leaving:
            worker.models, worker.leaving = loaded, leaving
            self._board.pool.changed(worker, now)

    def drain(self, address: str, draining: bool, now: float) -> None:
        """Let a worker finish and give it nothing new, or let it take work again."""
        worker = self._board.pool.get(address)
        if worker is not None and worker.draining != draining:
            worker.draining = draining
            self._board.pool.changed(worker, now)

    def assign(self, address: str, kinds: frozenset[Kind], now: float) -> None:
        """Give a worker these kinds of work from now on, and no others; none: take it out."""
        worker = self._board.pool.get(address)
        if worker is None:
            return
        if kinds:
            worker.registration = replace(worker.registration, kinds=kinds)
            self._board.pool.changed(worker, now)
        else:
            self.remove(worker, now, Departure.DISMISSED)

    def lapse(self, now: float) -> None:
        """Take out workers whose lease has lapsed, and those that hang."""
        for worker in list(self._board.pool):
            hung = bool(worker.placements) and (
                now - worker.progress_at >= self._board.rules.hung_seconds
            )
            if hung:
                self.remove(worker, now, Departure.HUNG, blamed=True)
            elif worker.lease_until <= now:
                self.remove(worker, now, Departure.LAPSED)

    def remove(self, worker: Worker, now: float, cause: Departure, *, blamed: bool = False) -> None:
        """Take a worker out; what it was at goes back to the queue.

        Args:
            worker: The worker.
            now: The present second.
            cause: Why it goes.
            blamed: Whether it failed, so that it rests should it come back.
        """
        self.departures[cause] += 1
        self._board.pool.remove(worker)
        if blamed:
            self._note(worker.address, worker.failures + 1, now)
            self._recovery.broke_off(worker, now)
        for placement in list(worker.placements.values()):
            # Giving one back may end its request, and with it others of the worker's.
            if placement.id in self._board.placements:
                self.taken_back += bool(placement.outstanding)
                self._board.recall(placement, now)
                self._recovery.lost(placement, now, attempt=placement.accepted)

    def strike(self, worker: Worker, now: float, *, model: str = "") -> None:
        """A worker has failed: it gets a rest, so that it does not draw all work to it.

        Args:
            worker: The worker.
            now: The present second.
            model: The model that it failed with, where that may be the cause. The rest grows with
                the models, so that a bad one cannot lay the herd off.
        """
        if not model or model not in worker.failed_models:
            worker.failures += 1
        if model:
            worker.failed_models.add(model)
            # Its next heartbeat tells whether it has it loaded all the same.
            worker.models -= {model}
        self.rests[Rest.FAILURE] += 1
        self._board.pool.rest(worker, self._note(worker.address, worker.failures, now), now)

    def unreachable(self, worker: Worker, now: float) -> None:
        """A worker could not be reached: it gets a rest, which its next start ends.

        It is told so for each dispatch to it; the rest is for them all.
        """
        if worker.resting_until > now:
            return
        worker.misses += 1
        self.rests[Rest.UNREACHABLE] += 1
        seconds = self._rest(self._board.rules.failure_rest_seconds, worker.misses)
        self._board.pool.rest(worker, seconds, now)

    def succeeded(self, worker: Worker) -> None:
        """A worker has done work: its failures are forgiven."""
        worker.refusals = worker.failures = 0
        worker.failed_models.clear()
        self._pasts.pop(worker.address, None)

    def refused(self, worker: Worker, now: float) -> None:
        """A worker was busy although it seemed to have room: it gets a short rest."""
        worker.refusals += 1
        self.rests[Rest.BUSY] += 1
        seconds = self._rest(self._board.rules.busy_rest_seconds, worker.refusals)
        self._board.pool.rest(worker, seconds, now)

    def leased(self, address: str, generation: int) -> Worker:
        """The worker with this address and generation.

        Raises:
            Aborted: It has no lease, or a newer one.
        """
        worker = self._board.pool.get(address)
        if worker is None or worker.registration.generation != generation:
            raise refusals.lease_lost(generation)
        return worker

    def _note(self, address: str, failures: int, now: float) -> float:
        """Remember a failure beyond the worker's next start; gives the seconds of its rest."""
        seconds = self._rest(self._board.rules.failure_rest_seconds, failures)
        self._pasts[address] = _Past(failures, now + seconds)
        return seconds

    def _rest(self, first: float, times: int) -> float:
        return min(first * 2.0 ** min(times - 1, 20), self._board.rules.longest_rest_seconds)


def _models(models: Iterable[str]) -> frozenset[str]:
    return frozenset(model for model in models if model)

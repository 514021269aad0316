"""The scheduler: what happened comes in, what is to be done comes out."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from evalpool_router.scheduler import refusals
from evalpool_router.scheduler.fair_queue import FairQueue
from evalpool_router.scheduler.packaging import take_package
from evalpool_router.scheduler.pool import Placement, Pool, Worker
from evalpool_router.scheduler.rules import Rules
from evalpool_router.scheduler.tally import Tally, Totals
from evalpool_router.scheduler.ticket import Ticket
from evalpool_router.scheduler.work import (
    Dispatch,
    Effect,
    End,
    FailQuestions,
    Kind,
    Lane,
    Recall,
    Registration,
    Request,
    WorkerView,
)
from evalpool_runtime.errors import DomainError

LANES = (
    Lane(Kind.EVALUATE, False),
    Lane(Kind.EVALUATE, True),
    Lane(Kind.CHAT, False),
    Lane(Kind.JUDGE, False),
)


class Scheduler:
    """Binds work to workers, late: only when a worker has room.

    Every method that changes something takes the time in seconds of a clock that never goes back,
    and returns the effects that its caller must carry out, in order.

    Args:
        rules: What it goes by.
        now: The present second.
    """

    def __init__(self, rules: Rules, now: float) -> None:
        self.rules = rules
        self._tickets: dict[int, Ticket] = {}
        self._placements: dict[int, Placement] = {}
        numbers = itertools.count(1)
        self._queues = {lane: FairQueue(rules.ageing_seconds, numbers) for lane in LANES}
        self._pool = Pool(LANES, rules)
        self._deadlines: list[tuple[float, int]] = []
        self._orders = itertools.count(1)
        self._dispatch_numbers = itertools.count(1)
        self._tally = Tally(rules, now)
        self._strikes: Counter[str] = Counter()
        self._effects: list[Effect] = []

    # Requests

    def submit(self, request: Request, now: float) -> list[Effect]:
        """Take a request in.

        Raises:
            ResourceExhausted: The queue is full, or the caller's part of it.
        """
        units = len(request.tokens)
        self._tally.check_room(request, now)
        ticket = Ticket(request, now, next(self._orders), unfinished=units)
        ticket.pending.extend(range(units))
        self._tickets[request.id] = ticket
        self._tally.hold(request)
        heapq.heappush(self._deadlines, (request.deadline, request.id))
        if len(self._deadlines) > 2 * len(self._tickets) + 1000:
            self._deadlines = [d for d in self._deadlines if d[1] in self._tickets]
            heapq.heapify(self._deadlines)
        self._tally.queued(ticket.request, units)
        self._queues[request.lane].put(ticket, now)
        return self._settle(now)

    def cancel(self, request: int, now: float) -> list[Effect]:
        """Forget a request whose caller has gone; nothing where it has ended already."""
        ticket = self._tickets.get(request)
        if ticket is not None:
            self._drop(ticket, now)
        return self._settle(now)

    def position(self, request: int) -> int:
        """About how many units go before the request's next one."""
        ticket = self._tickets.get(request)
        if ticket is None or not ticket.waiting:
            return 0
        return self._queues[ticket.request.lane].ahead(ticket)

    # Workers

    def worker_registered(self, registration: Registration, now: float) -> list[Effect]:
        """Enter a worker, or enter it anew: what it was at under an older generation is lost."""
        known = self._pool.get(registration.address)
        if known is not None and known.registration.generation == registration.generation:
            known.registration = registration
            known.models = _models(registration.models)
            known.lease_until = now + self.rules.lease_seconds
            known.draining = registration.draining
            self._pool.changed(known, now)
            return self._settle(now)
        if known is not None:
            # A new start in the midst of work is likely to follow a crash.
            self._remove(known, now, blamed=bool(known.placements))
        worker = Worker(
            registration,
            models=_models(registration.models),
            lease_until=now + self.rules.lease_seconds,
            progress_at=now,
            draining=registration.draining,
            failures=self._strikes[registration.address],
        )
        if worker.failures:
            worker.resting_until = now + self._rest(
                self.rules.failure_rest_seconds, worker.failures
            )
        self._pool.add(worker, now)
        return self._settle(now)

    def heartbeat(
        self,
        address: str,
        generation: int,
        now: float,
        *,
        models: Iterable[str] = (),
        computed_tokens: int = 0,
        leaving: bool = False,
    ) -> list[Effect]:
        """Keep a worker's lease.

        Raises:
            Aborted: The worker has no lease, or a newer one.
        """
        worker = self._leased(address, generation)
        worker.lease_until = now + self.rules.lease_seconds
        if computed_tokens != worker.computed_tokens:
            worker.computed_tokens = computed_tokens
            worker.progress_at = now
        loaded = _models(models)
        if loaded != worker.models or leaving != worker.leaving:
            worker.models, worker.leaving = loaded, leaving
            self._pool.changed(worker, now)
        return self._settle(now)

    def worker_left(self, address: str, generation: int, now: float) -> list[Effect]:
        """Take out a worker that says good-bye.

        Raises:
            Aborted: The worker has no lease, or a newer one.
        """
        self._remove(self._leased(address, generation), now, blamed=False)
        return self._settle(now)

    def drain(self, address: str, draining: bool, now: float) -> list[Effect]:
        """Let a worker finish what it is at and give it nothing new, or let it take work again."""
        worker = self._pool.get(address)
        if worker is not None and worker.draining != draining:
            worker.draining = draining
            self._pool.changed(worker, now)
        return self._settle(now)

    def restrict(self, address: str, kinds: frozenset[Kind], now: float) -> list[Effect]:
        """Leave a worker only these kinds of work; none: take it out."""
        worker = self._pool.get(address)
        if worker is not None and not kinds & worker.registration.kinds:
            self._remove(worker, now, blamed=False)
        elif worker is not None:
            remaining = worker.registration.kinds & kinds
            worker.registration = replace(worker.registration, kinds=remaining)
            self._pool.changed(worker, now)
        return self._settle(now)

    def worker(self, address: str, now: float) -> WorkerView | None:
        """How a worker stands; None for one without a lease."""
        worker = self._pool.get(address)
        return None if worker is None else worker.view(now)

    def workers(self, now: float) -> list[WorkerView]:
        """How all workers stand, by address."""
        return sorted((w.view(now) for w in self._pool), key=lambda view: view.address)

    def able(self, kind: Kind) -> int:
        """Workers that take new work of a kind, busy or not."""
        return self._pool.able(kind)

    def loaded_models(self, kind: Kind) -> list[str]:
        """Models that workers of a kind have loaded, those of most workers first."""
        loaded: Counter[str] = Counter()
        for worker in self._pool:
            if kind in worker.registration.kinds and worker.takes_new():
                loaded.update(worker.models)
        # The digest decides between equals, so that two calls get the same answer.
        return sorted(loaded, key=lambda model: (-loaded[model], model))

    # Dispatches

    def is_current(self, dispatch: int) -> bool:
        """Whether results of a dispatch still count."""
        return dispatch in self._placements

    def outstanding(self, dispatch: int) -> int:
        """Units of a dispatch that are not done."""
        placement = self._placements.get(dispatch)
        return 0 if placement is None else len(placement.outstanding)

    def accepted(self, dispatch: int, now: float) -> None:
        """A worker has begun with a dispatch."""
        placement = self._placements.get(dispatch)
        if placement is not None:
            worker = placement.worker
            placement.accepted = True
            worker.progress_at = now
            worker.refusals = 0
            # It loads the model now; its heartbeats will tell the same, later.
            worker.models |= {placement.ticket.request.model}
            self._pool.changed(worker, now)

    def progressed(self, dispatch: int, now: float) -> None:
        """A worker gets on with a dispatch, without a result yet."""
        placement = self._placements.get(dispatch)
        if placement is not None:
            placement.worker.progress_at = now

    def sent(self, dispatch: int) -> None:
        """A part of the answer is on its way to the caller: it cannot be begun anew."""
        placement = self._placements.get(dispatch)
        if placement is not None:
            placement.ticket.sent = True

    def refused(self, dispatch: int, now: float) -> list[Effect]:
        """The worker has no slot for it: no attempt, and it goes back to the front."""
        placement = self._placements.get(dispatch)
        if placement is not None:
            worker = placement.worker
            worker.refusals += 1
            self._release(placement, now)
            self._pool.rest(worker, self._rest(self.rules.busy_rest_seconds, worker.refusals), now)
            self._return(placement, now, attempt=False)
        return self._settle(now)

    def questions_finished(
        self, dispatch: int, questions: Sequence[int], now: float, *, tokens: int = 0
    ) -> tuple[tuple[int, ...], list[Effect]]:
        """Results have come.

        Args:
            dispatch: Of which dispatch.
            questions: Indices of the questions.
            now: The present second.
            tokens: Tokens computed for them.

        Returns:
            The indices that count, which are to be told the caller before the effects; and effects.
        """
        placement = self._placements.get(dispatch)
        if placement is None:
            return (), []
        counting = tuple(dict.fromkeys(q for q in questions if q in placement.outstanding))
        if counting:
            ticket, worker = placement.ticket, placement.worker
            for question in counting:
                del placement.outstanding[question]
                estimated = ticket.request.tokens[question]
                placement.tokens -= estimated
                worker.tokens -= estimated
            worker.progress_at = now
            worker.failures = 0
            self._strikes.pop(worker.address, None)
            worker.completed += len(counting)
            self._tally.completed(ticket.request, len(counting), tokens, now)
            ticket.unfinished -= len(counting)
            self._pool.changed(worker, now)
            self._end_if_done(ticket)
        return counting, self._settle(now)

    def finished(self, dispatch: int, now: float) -> list[Effect]:
        """The worker is through with a dispatch; what it left out counts as lost there."""
        placement = self._placements.get(dispatch)
        if placement is not None:
            self._release(placement, now)
            if placement.outstanding:
                self._strike(placement.worker, now)
            self._return(placement, now, attempt=True)
        return self._settle(now)

    def lost(self, dispatch: int, now: float, *, attempt: bool = True) -> list[Effect]:
        """The stream from the worker broke, or never came about.

        Args:
            dispatch: Which dispatch.
            now: The present second.
            attempt: False where the worker could not even begin.
        """
        placement = self._placements.get(dispatch)
        if placement is not None:
            self._release(placement, now)
            self._strike(placement.worker, now)
            self._return(placement, now, attempt=attempt and placement.accepted)
        return self._settle(now)

    def failed(
        self, dispatch: int, error: DomainError, now: float, *, blamed: bool
    ) -> list[Effect]:
        """The worker ended a dispatch with an error that another worker would give too.

        Args:
            dispatch: Which dispatch.
            error: What to tell the caller.
            now: The present second.
            blamed: Whether it may be this worker's own trouble, so that it gets a rest.
        """
        placement = self._placements.get(dispatch)
        if placement is not None:
            ticket = placement.ticket
            self._release(placement, now)
            placement.worker.failed += 1
            if blamed:
                self._strike(placement.worker, now)
            if ticket.request.id in self._tickets:
                self._tally.running(ticket.request, -len(placement.outstanding))
                self._tally.failed(ticket.request, ticket.unfinished)
                self._drop(ticket, now)
                self._effects.append(End(ticket.request.id, error))
        return self._settle(now)

    # Time

    def time_passed(self, now: float) -> list[Effect]:
        """Let deadlines pass, leases lapse, hung workers go and rested ones come back."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, request = heapq.heappop(self._deadlines)
            ticket = self._tickets.get(request)
            if ticket is not None:
                error = refusals.too_late(ticket.request.kind, self._pool.able(ticket.request.kind))
                self._tally.failed(ticket.request, ticket.unfinished)
                self._drop(ticket, now)
                self._effects.append(End(request, error))
        for worker in list(self._pool):
            hung = bool(worker.placements) and (now - worker.progress_at >= self.rules.hung_seconds)
            if hung or worker.lease_until <= now:
                self._remove(worker, now, blamed=hung)
        self._pool.rested(now)
        return self._settle(now)

    def next_time(self) -> float | None:
        """When `time_passed` has something to do at the latest, leases and hung workers aside."""
        times = [self._deadlines[0][0]] if self._deadlines else []
        rested = self._pool.next_rested()
        if rested is not None:
            times.append(rested)
        return min(times, default=None)

    # Figures

    def totals(self) -> Totals:
        """Units of all models."""
        return self._tally.totals()

    def totals_by_model(self) -> dict[str, Totals]:
        """Units by the model's digest."""
        return self._tally.totals_by_model()

    def queued_of(self, lane: Lane) -> int:
        """Units of a lane that wait."""
        queue = self._queues.get(lane)
        return 0 if queue is None else queue.waiting

    def per_second(self, now: float) -> tuple[float, float]:
        """Units and tokens finished a second, over the last minute."""
        return self._tally.per_second(now)

    # Inside

    def _settle(self, now: float) -> list[Effect]:
        """Send out what can be sent out, and hand over the effects so far."""
        while True:
            turns = [
                (turn[0], lane, turn[1])
                for lane, queue in self._queues.items()
                if (turn := queue.peek()) is not None and self._pool.has_room(lane)
            ]
            if not turns:
                break
            _, lane, ticket = min(turns, key=lambda turn: turn[0])
            self._dispatch(lane, ticket, now)
        effects, self._effects = self._effects, []
        return effects

    def _dispatch(self, lane: Lane, ticket: Ticket, now: float) -> None:
        worker = self._pool.choose(lane, ticket.request.model)
        if worker is None:
            raise AssertionError("a lane with room has a worker to choose")
        units = take_package(ticket, self._pool.able(lane.kind), self.rules)
        self._queues[lane].took(ticket, len(units), now)
        self._tally.queued(ticket.request, -len(units))
        placement = Placement(
            id=next(self._dispatch_numbers),
            ticket=ticket,
            worker=worker,
            outstanding=dict.fromkeys(units),
            tokens=sum(ticket.request.tokens[unit] for unit in units),
        )
        self._placements[placement.id] = placement
        ticket.dispatches.add(placement.id)
        self._tally.running(ticket.request, len(units))
        self._pool.place(placement, now)
        self._effects.append(
            Dispatch(
                id=placement.id,
                request=ticket.request.id,
                worker=worker.address,
                generation=worker.registration.generation,
                questions=units,
            )
        )

    def _release(self, placement: Placement, now: float) -> None:
        del self._placements[placement.id]
        placement.ticket.dispatches.discard(placement.id)
        self._pool.release(placement, now)

    def _return(self, placement: Placement, now: float, *, attempt: bool) -> None:
        """Put what a released dispatch left undone to the front of the queue, or give it up."""
        ticket = placement.ticket
        units = list(placement.outstanding)
        if not units or ticket.request.id not in self._tickets:
            return
        self._tally.running(ticket.request, -len(units))
        if attempt:
            placement.worker.failed += 1
            if ticket.sent:
                self._tally.failed(ticket.request, ticket.unfinished)
                self._drop(ticket, now)
                self._effects.append(End(ticket.request.id, refusals.worker_lost()))
                return
            for unit in units:
                ticket.losses[unit] = ticket.losses.get(unit, 0) + 1
        given_up = [u for u in units if ticket.losses.get(u, 0) >= self.rules.losses]
        again = [u for u in units if ticket.losses.get(u, 0) < self.rules.losses]
        if again:
            ticket.returned.extendleft(reversed(again))
            self._tally.queued(ticket.request, len(again))
            self._queues[ticket.request.lane].put_back(ticket, len(again), now)
        if given_up:
            self._give_up(ticket, tuple(given_up), now)

    def _give_up(self, ticket: Ticket, units: tuple[int, ...], now: float) -> None:
        self._tally.failed(ticket.request, len(units))
        ticket.unfinished -= len(units)
        error = refusals.lost_too_often(self.rules.losses)
        if ticket.request.scoring:
            self._effects.append(FailQuestions(ticket.request.id, units, error))
            self._end_if_done(ticket)
        else:
            self._drop(ticket, now)
            self._effects.append(End(ticket.request.id, error))

    def _end_if_done(self, ticket: Ticket) -> None:
        """End a request with nothing left; its dispatches go on until their streams end."""
        if ticket.unfinished == 0:
            self._forget(ticket)
            self._effects.append(End(ticket.request.id))

    def _drop(self, ticket: Ticket, now: float) -> None:
        """Take a request out, from the queue and from its workers."""
        self._forget(ticket)
        self._tally.queued(ticket.request, -ticket.waiting)
        self._queues[ticket.request.lane].remove(ticket)
        for dispatch in sorted(ticket.dispatches):
            placement = self._placements[dispatch]
            self._tally.running(ticket.request, -len(placement.outstanding))
            self._release(placement, now)
            self._effects.append(Recall(dispatch))

    def _forget(self, ticket: Ticket) -> None:
        del self._tickets[ticket.request.id]
        self._tally.let_go(ticket.request)

    def _remove(self, worker: Worker, now: float, *, blamed: bool) -> None:
        self._pool.remove(worker)
        if blamed:
            self._strikes[worker.address] += 1
        for placement in list(worker.placements.values()):
            if placement.id not in self._placements:
                continue
            self._effects.append(Recall(placement.id))
            self._release(placement, now)
            self._return(placement, now, attempt=placement.accepted)

    def _strike(self, worker: Worker, now: float) -> None:
        worker.failures += 1
        self._strikes[worker.address] = worker.failures
        self._pool.rest(worker, self._rest(self.rules.failure_rest_seconds, worker.failures), now)

    def _rest(self, first: float, times: int) -> float:
        return min(first * 2.0 ** min(times - 1, 20), self.rules.longest_rest_seconds)

    def _leased(self, address: str, generation: int) -> Worker:
        worker = self._pool.get(address)
        if worker is None or worker.registration.generation != generation:
            raise refusals.lease_lost(generation)
        return worker


def _models(models: Iterable[str]) -> frozenset[str]:
    return frozenset(model for model in models if model)

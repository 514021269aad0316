"""What waits, what runs and who works, changed together so that they agree at every step.

Each unit of a request is in one place: in a portion that waits, in a dispatch under way, done, or
given up. Whoever decides something does it through here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from evalpool_router.scheduler.fair_queue import FairQueue
from evalpool_router.scheduler.memory import NOBODY
from evalpool_router.scheduler.pool import Pool
from evalpool_router.scheduler.rules import Rules
from evalpool_router.scheduler.tally import Tally
from evalpool_router.scheduler.ticket import Portion, Ticket
from evalpool_router.scheduler.work import (
    Dispatch,
    Effect,
    End,
    FailQuestions,
    Kind,
    Lane,
    Recall,
    Request,
    Requirement,
)
from evalpool_router.scheduler.worker import Placement, Worker
from evalpool_runtime.errors import DomainError

LANES = (
    Lane(Kind.EVALUATE, False),
    Lane(Kind.EVALUATE, True),
    Lane(Kind.CHAT, False),
    Lane(Kind.JUDGE, False),
)


class Board:
    """The state of the scheduler.

    Attributes:
        rules: What the scheduler goes by.
        tickets: Requests that have not ended, by number.
        troubled: Those of them that a worker has failed, wholly or in part.
        placements: Dispatches under way, by number.
        queues: What waits, by lane.
        pool: The workers.
        tally: Counts of units.

    Args:
        rules: What the scheduler goes by.
        now: The present second.
    """

    def __init__(self, rules: Rules, now: float) -> None:
        self.rules = rules
        self.tickets: dict[int, Ticket] = {}
        self.troubled: dict[int, Ticket] = {}
        self.placements: dict[int, Placement] = {}
        turns = itertools.count(1)
        self.queues = {
            lane: FairQueue(rules.ageing_seconds, turns, self._require) for lane in LANES
        }
        self.pool = Pool(LANES, rules)
        self.tally = Tally(rules, now)
        self._orders = itertools.count(1)
        self._dispatch_numbers = itertools.count(1)
        self._effects: list[Effect] = []

    def take_effects(self) -> list[Effect]:
        """What is to be done since this was last asked."""
        effects, self._effects = self._effects, []
        return effects

    # Requests

    def enter(self, request: Request, now: float) -> None:
        """Take a request in.

        Raises:
            ResourceExhausted: The queue is full, or the caller's part of it.
        """
        self.tally.check_room(request, now)
        ticket = Ticket(request, now, next(self._orders))
        self.tickets[request.id] = ticket
        self.tally.hold(request)
        self.tally.queued(request, ticket.unfinished)
        self.queues[request.lane].put(ticket, now)

    def drop(self, ticket: Ticket, now: float) -> None:
        """Take a request out, from the queue and from its workers."""
        self._forget(ticket)
        for portion in ticket.portions():
            self.withdraw(portion)
        for dispatch in sorted(ticket.dispatches):
            placement = self.placements[dispatch]
            self.tally.running(ticket.request, -len(placement.outstanding))
            self.recall(placement, now)

    def end(self, ticket: Ticket, error: DomainError, now: float) -> None:
        """End a request with an error, wherever it is."""
        self.tally.failed(ticket.request, ticket.unfinished)
        self.drop(ticket, now)
        self._effects.append(End(ticket.request.id, error))

    def refile(self, ticket: Ticket) -> None:
        """Look again at what the waiting units of a request require."""
        for portion in ticket.portions():
            self.queues[ticket.request.lane].refile(portion)

    def withdraw(self, portion: Portion) -> tuple[int, ...]:
        """Take a portion's units out of the queue."""
        request, units = portion.ticket.request, tuple(portion.units)
        self.tally.queued(request, -len(units))
        self.queues[request.lane].remove(portion)
        return units

    def give_up(self, ticket: Ticket, units: Sequence[int], error: DomainError, now: float) -> None:
        """Give up units that are neither waiting nor running; the request's others go on."""
        if not ticket.request.scoring:
            self.end(ticket, error, now)
            return
        self.tally.failed(ticket.request, len(units))
        ticket.unfinished -= len(units)
        self._effects.append(FailQuestions(ticket.request.id, tuple(units), error))
        self._end_if_done(ticket)

    def worker_joined(self, worker: Worker) -> None:
        """Look again at what waits and may require something else now that a worker has come."""
        if not worker.only_models:
            for queue in self.queues.values():
                queue.memory_joined(worker.memory)
            return
        for ticket in self.tickets.values():
            if ticket.request.model in worker.only_models:
                self.refile(ticket)

    # Dispatches

    def send(self, ticket: Ticket, units: tuple[int, ...], worker: Worker, now: float) -> None:
        """Send units that have been taken out of the waiting ones to a worker."""
        request = ticket.request
        self.queues[request.lane].took(ticket, len(units), now)
        self.tally.queued(request, -len(units))
        placement = Placement(
            id=next(self._dispatch_numbers),
            ticket=ticket,
            worker=worker,
            outstanding=dict.fromkeys(units),
            tokens=sum(request.tokens[unit] for unit in units),
        )
        self.placements[placement.id] = placement
        ticket.dispatches.add(placement.id)
        self.tally.running(request, len(units))
        self.pool.place(placement, now)
        generation = worker.registration.generation
        self._effects.append(Dispatch(placement.id, request.id, worker.address, generation, units))

    def release(self, placement: Placement, now: float) -> None:
        """A dispatch is no longer under way."""
        del self.placements[placement.id]
        placement.ticket.dispatches.discard(placement.id)
        self.pool.release(placement, now)

    def recall(self, placement: Placement, now: float) -> None:
        """Release a dispatch whose worker is not to go on with it."""
        self._effects.append(Recall(placement.id))
        self.release(placement, now)

    def take_back(self, placement: Placement, units: Iterable[int], now: float) -> None:
        """Units of a dispatch are no longer asked of its worker."""
        ticket, worker = placement.ticket, placement.worker
        for unit in units:
            del placement.outstanding[unit]
            estimated = ticket.request.tokens[unit]
            placement.tokens -= estimated
            worker.tokens -= estimated
        self.pool.changed(worker, now)

    def complete(
        self, placement: Placement, units: tuple[int, ...], tokens: int, now: float
    ) -> None:
        """Units of a dispatch are done."""
        ticket = placement.ticket
        self.take_back(placement, units, now)
        placement.worker.completed += len(units)
        placement.worker.throughput.add(len(units), tokens, now)
        self.tally.completed(ticket.request, len(units), tokens, now)
        ticket.unfinished -= len(units)
        self._end_if_done(ticket)

    def put_back(self, ticket: Ticket, units: Iterable[int], now: float) -> None:
        """Let units that no longer run go to the front of the queue, in their order."""
        coming: dict[Portion, list[int]] = {}
        for unit in units:
            coming.setdefault(ticket.portion_of(unit), []).append(unit)
        for portion, some in coming.items():
            portion.units.extendleft(reversed(some))
            self.tally.queued(ticket.request, len(some))
            self.queues[ticket.request.lane].put_back(portion, len(some), now)

    # Inside

    def _end_if_done(self, ticket: Ticket) -> None:
        """End a request with nothing left; its dispatches go on until their streams end."""
        if ticket.unfinished == 0:
            self._forget(ticket)
            self._effects.append(End(ticket.request.id))

    def _forget(self, ticket: Ticket) -> None:
        del self.tickets[ticket.request.id]
        self.troubled.pop(ticket.request.id, None)
        self.tally.let_go(ticket.request)

    def _require(self, portion: Portion) -> Requirement:
        ticket = portion.ticket
        if ticket.spent:
            return Requirement(NOBODY)
        request = ticket.request
        return self.pool.require(request.model, request.model_bytes, portion.shunned)

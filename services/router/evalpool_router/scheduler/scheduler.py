"""The scheduler: what happened comes in, what is to be done comes out."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from evalpool_router.scheduler import refusals, standing
from evalpool_router.scheduler.board import Board
from evalpool_router.scheduler.matching import match
from evalpool_router.scheduler.recovery import Recovery, verdict
from evalpool_router.scheduler.roll import Departure, Rest, Roll
from evalpool_router.scheduler.rules import Rules
from evalpool_router.scheduler.tally import Totals
from evalpool_router.scheduler.throughput import Rates
from evalpool_router.scheduler.views import ModelView, WorkerView
from evalpool_router.scheduler.work import Effect, Kind, Lane, Registration, Request
from evalpool_runtime.errors import DomainError


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
        self._board = Board(rules, now)
        self._recovery = Recovery(self._board)
        self._roll = Roll(self._board, self._recovery)
        self._deadlines: list[tuple[float, int]] = []

    # Requests

    def submit(self, request: Request, now: float) -> list[Effect]:
        """Take a request in.

        Raises:
            ResourceExhausted: The queue is full, or the caller's part of it.
        """
        tickets = self._board.tickets
        self._board.enter(request, now)
        self._recovery.entered(tickets[request.id], now)
        heapq.heappush(self._deadlines, (request.deadline, request.id))
        if len(self._deadlines) > 2 * len(tickets) + 1000:
            self._deadlines = [d for d in self._deadlines if d[1] in tickets]
            heapq.heapify(self._deadlines)
        return self._settle(now)

    def cancel(self, request: int, now: float) -> list[Effect]:
        """Forget a request whose caller has gone; nothing where it has ended already."""
        ticket = self._board.tickets.get(request)
        if ticket is not None:
            self._board.drop(ticket, now)
        return self._settle(now)

    def position(self, request: int) -> int:
        """About how many units go before the request's next one."""
        ticket = self._board.tickets.get(request)
        if ticket is None or not ticket.waiting:
            return 0
        return self._board.queues[ticket.request.lane].ahead(ticket)

    def stage(self, request: int) -> str:
        """What a request is at, in a phrase for its caller; empty where it has ended."""
        ticket = self._board.tickets.get(request)
        return "" if ticket is None else standing.stage(ticket, self._board.pool)

    def lack(self, request: int) -> str:
        """What the herd lacks for a request that no worker is at, and the remedy; or nothing."""
        ticket = self._board.tickets.get(request)
        if ticket is None or ticket.dispatches:
            return ""
        return standing.lack(ticket.request, self._board.pool)

    # Workers

    def worker_registered(self, registration: Registration, now: float) -> list[Effect]:
        """Enter a worker, or enter it anew: what it was at under an older generation is lost."""
        self._roll.register(registration, now)
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
        self._roll.heartbeat(
            address,
            generation,
            now,
            models=models,
            computed_tokens=computed_tokens,
            leaving=leaving,
        )
        return self._settle(now)

    def worker_left(self, address: str, generation: int, now: float) -> list[Effect]:
        """Take out a worker that says good-bye.

        Raises:
            Aborted: The worker has no lease, or a newer one.
        """
        self._roll.remove(self._roll.leased(address, generation), now, Departure.LEFT)
        return self._settle(now)

    def drain(self, address: str, draining: bool, now: float) -> list[Effect]:
        """Let a worker finish what it is at and give it nothing new, or let it take work again."""
        self._roll.drain(address, draining, now)
        return self._settle(now)

    def assign(self, address: str, kinds: frozenset[Kind], now: float) -> list[Effect]:
        """Give a worker these kinds of work from now on, and no others; none: take it out."""
        self._roll.assign(address, kinds, now)
        return self._settle(now)

    def has_worker(self, address: str) -> bool:
        """Whether a worker has a lease."""
        return self._board.pool.get(address) is not None

    def worker(self, address: str, now: float) -> WorkerView | None:
        """How a worker stands; None for one without a lease."""
        worker = self._board.pool.get(address)
        return None if worker is None else worker.view(now)

    def workers(self, now: float) -> list[WorkerView]:
        """How all workers stand, by address."""
        views = (worker.view(now) for worker in self._board.pool)
        return sorted(views, key=lambda view: view.address)

    def loaded_models(self, kind: Kind) -> list[str]:
        """Models that workers of a kind have loaded, those of most workers first."""
        loaded: Counter[str] = Counter()
        for worker in self._board.pool:
            if kind in worker.registration.kinds and worker.takes_new():
                loaded.update(worker.ready_models)
        # The digest decides between equals, so that two calls get the same answer.
        return sorted(loaded, key=lambda model: (-loaded[model], model))

    # Dispatches

    def is_current(self, dispatch: int) -> bool:
        """Whether results of a dispatch still count."""
        return dispatch in self._board.placements

    def outstanding(self, dispatch: int) -> int:
        """Units of a dispatch that are not done."""
        placement = self._board.placements.get(dispatch)
        return 0 if placement is None else len(placement.outstanding)

    def accepted(self, dispatch: int, now: float) -> None:
        """A worker has begun with a dispatch."""
        placement = self._board.placements.get(dispatch)
        if placement is not None:
            worker = placement.worker
            placement.accepted = True
            worker.misses = 0
            worker.progress_at = now
            # It loads the model now; its heartbeats will tell the same, later.
            worker.models |= {placement.ticket.request.model}
            self._board.pool.changed(worker, now)

    def progressed(self, dispatch: int, now: float) -> None:
        """A worker gets on with a dispatch, without a result yet."""
        placement = self._board.placements.get(dispatch)
        if placement is not None:
            placement.worker.progress_at = now
            placement.worker.refusals = 0
            placement.suspected = None

    def sent(self, dispatch: int) -> None:
        """A part of the answer is on its way to the caller: it cannot be begun anew."""
        placement = self._board.placements.get(dispatch)
        if placement is not None:
            placement.ticket.sent = True

    def refused(self, dispatch: int, now: float) -> list[Effect]:
        """The worker has no slot for it: no attempt, and it goes back to the front."""
        placement = self._board.placements.get(dispatch)
        if placement is not None:
            self._board.release(placement, now)
            self._roll.refused(placement.worker, now)
            self._recovery.lost(placement, now, attempt=False)
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
        placement = self._board.placements.get(dispatch)
        if placement is None:
            return (), []
        counting = tuple(dict.fromkeys(q for q in questions if q in placement.outstanding))
        if counting:
            placement.worker.progress_at = now
            self._roll.succeeded(placement.worker)
            self._recovery.proven(placement)
            self._board.complete(placement, counting, tokens, now)
        return counting, self._settle(now)

    def questions_failed(
        self, dispatch: int, errors: Mapping[int, DomainError], now: float
    ) -> list[Effect]:
        """A worker could not answer questions, by what may be its own trouble: others get them.

        Args:
            dispatch: Of which dispatch.
            errors: What went wrong, by the question's index.
            now: The present second.
        """
        placement = self._board.placements.get(dispatch)
        if placement is None:
            return []
        counting = {q: error for q, error in errors.items() if q in placement.outstanding}
        if counting:
            placement.worker.progress_at = now
            self._roll.strike(placement.worker, now, model=placement.ticket.request.model)
            self._recovery.failed_units(placement, counting, now)
        return self._settle(now)

    def finished(self, dispatch: int, now: float) -> list[Effect]:
        """The worker is through with a dispatch; what it left out counts as lost there."""
        placement = self._board.placements.get(dispatch)
        if placement is not None:
            self._board.release(placement, now)
            if placement.outstanding:
                self._roll.strike(placement.worker, now)
            self._recovery.lost(placement, now, attempt=True)
        return self._settle(now)

    def lost(
        self, dispatch: int, now: float, *, attempt: bool = True, broke_off: bool = False
    ) -> list[Effect]:
        """The stream from the worker broke, or never came about.

        Args:
            dispatch: Which dispatch.
            now: The present second.
            attempt: False where the worker could not even begin.
            broke_off: Whether it was the connection that broke: the worker may have been brought
                down, and with it everything that it was at.
        """
        placement = self._board.placements.get(dispatch)
        if placement is not None:
            attempt = attempt and placement.accepted
            # A worker that breaks off does so for all its dispatches, and has failed once.
            told = placement.suspected is not None
            if broke_off:
                self._recovery.broke_off(placement.worker, now)
            self._board.release(placement, now)
            if not attempt:
                self._roll.unreachable(placement.worker, now)
            elif not told:
                self._roll.strike(placement.worker, now)
            self._recovery.lost(placement, now, attempt=attempt)
        return self._settle(now)

    def failed(
        self, dispatch: int, error: DomainError, now: float, *, blamed: bool
    ) -> list[Effect]:
        """The worker ended a dispatch with an error.

        Args:
            dispatch: Which dispatch.
            error: What to tell the caller, should no worker do better.
            now: The present second.
            blamed: Whether it may be this worker's own trouble, so that others get the work;
                otherwise they would say the same, and the request ends.
        """
        placement = self._board.placements.get(dispatch)
        if placement is not None:
            ticket = placement.ticket
            self._board.release(placement, now)
            if blamed:
                self._roll.strike(placement.worker, now, model=ticket.request.model)
                self._recovery.failed(placement, error, now)
            else:
                self._recovery.rejected(placement, error, now)
        return self._settle(now)

    # Time

    def time_passed(self, now: float) -> list[Effect]:
        """Let deadlines pass, leases lapse, hung workers go and rested ones come back."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, request = heapq.heappop(self._deadlines)
            ticket = self._board.tickets.get(request)
            if ticket is not None:
                lack = standing.lack(ticket.request, self._board.pool)
                trouble = verdict(ticket.troubles) if ticket.troubles else None
                self._board.end(ticket, refusals.too_late(lack, trouble), now)
        self._roll.lapse(now)
        self._board.pool.rested(now)
        return self._settle(now)

    def next_time(self) -> float | None:
        """When `time_passed` has something to do at the latest, leases and hung workers aside."""
        while self._deadlines and self._deadlines[0][1] not in self._board.tickets:
            heapq.heappop(self._deadlines)
        times = [self._deadlines[0][0]] if self._deadlines else []
        rested = self._board.pool.next_rested()
        if rested is not None:
            times.append(rested)
        return min(times, default=None)

    # Figures

    def totals(self) -> Totals:
        """Units of all models."""
        return self._board.tally.totals()

    def models(self, now: float) -> list[ModelView]:
        """How the work stands for each model that was ever asked for, by its digest."""
        return [
            ModelView(digest, totals, rates, self._recovery.rest_of(digest, now))
            for digest, (totals, rates) in self._board.tally.by_model(now).items()
        ]

    def queued_of(self, lane: Lane) -> int:
        """Units of a lane that wait."""
        queue = self._board.queues.get(lane)
        return 0 if queue is None else queue.waiting

    def per_second(self, now: float) -> Rates:
        """Units and tokens finished a second, over the last minute."""
        return self._board.tally.per_second(now)

    def rate_window(self, now: float) -> float:
        """Seconds that rates are taken over."""
        return self._board.tally.rate_window(now)

    @property
    def rests(self) -> Mapping[Rest, int]:
        """How often workers were given a rest, by why."""
        return self._roll.rests

    @property
    def model_rests(self) -> int:
        """How often a model was given a rest."""
        return self._recovery.model_rests

    def resting_models(self, now: float) -> int:
        """Models that are not tried, because workers were lost over them."""
        return self._recovery.resting_models(now)

    @property
    def departures(self) -> Mapping[Departure, int]:
        """How often workers went, by why."""
        return self._roll.departures

    @property
    def taken_back(self) -> int:
        """How often work was taken back from a worker that went."""
        return self._roll.taken_back

    def _settle(self, now: float) -> list[Effect]:
        """Give up what is hopeless, send out what can be, and hand over the effects so far."""
        self._recovery.give_up_hopeless(now)
        match(self._board, now)
        return self._board.take_effects()

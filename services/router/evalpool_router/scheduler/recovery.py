"""What becomes of work that a worker has not done: another gets it, or it is given up.

A worker may be lost over its work, or have trouble with it that may be its own: it cannot fetch or
load the model, or its engine fails. Either way the work goes back to the front of the queue. Work
that a worker has failed goes to others, and is given up where no able one is left, or where so many
have failed it that the work is likely to be at fault.
"""

from __future__ import annotations

from collections.abc import Mapping

from evalpool_router.scheduler import refusals
from evalpool_router.scheduler.board import Board
from evalpool_router.scheduler.crashes import Crashes
from evalpool_router.scheduler.ticket import Portion, Ticket
from evalpool_router.scheduler.work import Incarnation
from evalpool_router.scheduler.worker import Placement, Worker
from evalpool_runtime.errors import DomainError, reasons


class Recovery:
    """Gives back and gives up.

    Args:
        board: What there is.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._crashes = Crashes(board.rules)
        self._unfit: set[str] = set()
        self._doubtful: set[int] = set()
        self._revision = 0

    @property
    def model_rests(self) -> int:
        """How often a model that brings workers down was given a rest."""
        return self._crashes.rests

    def resting_models(self, now: float) -> int:
        """Models that are not to be tried, because they bring workers down."""
        return self._crashes.resting(now)

    def rest_of(self, model: str, now: float) -> float:
        """Seconds for which a model is not to be tried, because it brings workers down."""
        return self._crashes.rest_of(model, now)

    def entered(self, ticket: Ticket, now: float) -> None:
        """End a new request of a model that brings workers down and is not to be tried now."""
        rest = self._crashes.rest_of(ticket.request.model, now)
        if rest:
            self._board.end(ticket, refusals.brings_workers_down(rest), now)

    def broke_off(self, worker: Worker, now: float) -> None:
        """A worker was lost in the midst of its work: say which models may have brought it down.

        It is told so for each of its dispatches; the first time is for them all.
        """
        at_work = [p for p in worker.placements.values() if p.accepted and p.suspected is None]
        if not at_work:
            return
        suspects = self._crashes.worker_lost({p.ticket.request.model for p in at_work}, now)
        for placement in at_work:
            placement.suspected = placement.ticket.request.model in suspects
        self._unfit.update(model for model in suspects if self._crashes.rest_of(model, now))

    def lost(self, placement: Placement, now: float, *, attempt: bool) -> None:
        """Give back what a released dispatch left undone.

        Args:
            placement: The dispatch.
            now: The present second.
            attempt: Whether the worker had begun, so that the work may be what brought it down.
        """
        board, ticket = self._board, placement.ticket
        self._doubtful.add(ticket.request.id)
        units = list(placement.outstanding)
        if not units or ticket.request.id not in board.tickets:
            return
        board.tally.running(ticket.request, -len(units))
        if attempt:
            placement.worker.failed += 1
            if ticket.sent:
                board.end(ticket, refusals.worker_lost(), now)
                return
            # What was lost along with a model that brings workers down is not to blame.
            if placement.suspected is not False:
                for unit in units:
                    ticket.losses[unit] = ticket.losses.get(unit, 0) + 1
        losses = board.rules.losses
        board.put_back(ticket, [u for u in units if ticket.losses.get(u, 0) < losses], now)
        given_up = [u for u in units if ticket.losses.get(u, 0) >= losses]
        if given_up:
            board.give_up(ticket, given_up, refusals.lost_too_often(losses), now)

    def failed(self, placement: Placement, error: DomainError, now: float) -> None:
        """Give back what a released dispatch left undone: its worker has failed the request."""
        board, ticket = self._board, placement.ticket
        self._doubtful.add(ticket.request.id)
        placement.worker.failed += 1
        if ticket.request.id not in board.tickets or not placement.outstanding:
            return
        board.tally.running(ticket.request, -len(placement.outstanding))
        if ticket.sent:
            # What has begun is never spliced.
            board.end(ticket, error, now)
            return
        board.troubled[ticket.request.id] = ticket
        _note(ticket.troubles, placement.worker.incarnation, error)
        ticket.spent = not ticket.proven and len(ticket.troubles) >= board.rules.tries
        board.refile(ticket)
        board.put_back(ticket, placement.outstanding, now)

    def rejected(self, placement: Placement, error: DomainError, now: float) -> None:
        """End the request of a released dispatch: another worker would reject it too."""
        ticket = placement.ticket
        placement.worker.failed += 1
        if ticket.request.id in self._board.tickets:
            self._board.tally.running(ticket.request, -len(placement.outstanding))
            self._board.end(ticket, error, now)

    def failed_units(
        self, placement: Placement, errors: Mapping[int, DomainError], now: float
    ) -> None:
        """Give back units that a worker has failed, while its dispatch goes on."""
        board, ticket = self._board, placement.ticket
        self._doubtful.add(ticket.request.id)
        board.troubled[ticket.request.id] = ticket
        placement.worker.failed += not placement.failed
        placement.failed = True
        board.take_back(placement, errors, now)
        board.tally.running(ticket.request, -len(errors))
        for unit, error in errors.items():
            troubles = ticket.unit_troubles.setdefault(unit, {})
            _note(troubles, placement.worker.incarnation, error)
        board.put_back(ticket, errors, now)

    def proven(self, placement: Placement) -> None:
        """A worker has answered a unit: that others fail the request is not its fault."""
        ticket = placement.ticket
        self._crashes.answered(ticket.request.model, len(self._board.pool))
        placement.suspected = None
        ticket.proven = True
        if ticket.spent:
            ticket.spent = False
            self._board.refile(ticket)

    def give_up_hopeless(self, now: float) -> None:
        """Give up what workers have failed, or been lost over, and no other is to try."""
        board = self._board
        while self._unfit:
            model = self._unfit.pop()
            error = refusals.brings_workers_down(self._crashes.rest_of(model, now))
            for ticket in [t for t in board.tickets.values() if t.request.model == model]:
                board.end(ticket, error, now)
        if self._revision != board.pool.revision:
            self._revision = board.pool.revision
            self._doubtful.update(board.troubled)
        while self._doubtful:
            number = self._doubtful.pop()
            if number in board.troubled:
                self._give_up_hopeless_of(board.troubled[number], now)

    def _give_up_hopeless_of(self, ticket: Ticket, now: float) -> None:
        board = self._board
        for portion in list(ticket.portions()):
            tried_enough = len(portion.failed_at) >= board.rules.tries
            if portion.failed_at and (tried_enough or self._is_nobody_left(portion)):
                for unit in board.withdraw(portion):
                    error = verdict(ticket.troubles | ticket.unit_troubles[unit])
                    board.give_up(ticket, (unit,), error, now)
            elif not ticket.dispatches and (ticket.spent or self._is_nobody_left(portion)):
                board.end(ticket, verdict(ticket.troubles), now)
                return

    def _is_nobody_left(self, portion: Portion) -> bool:
        """Whether every able worker has failed it; with none able, it waits for one to come."""
        if not portion.shunned:
            return False
        pool, request = self._board.pool, portion.ticket.request
        asked = request.kind, request.model, request.model_bytes
        return bool(pool.able(*asked)) and not pool.able(*asked, portion.shunned)


def verdict(troubles: Mapping[Incarnation, DomainError]) -> DomainError:
    """The error to give up with: the newest.

    That the model cannot be loaded is the model's fault only where every worker that has tried says
    so; where another was kept from it by something else, that is what is told.

    Args:
        troubles: What went wrong at each worker, the newest last.
    """
    errors = list(troubles.values())
    others = [e for e in errors if e.reason != reasons.ERROR_REASON_MODEL_LOAD_FAILED]
    return (others or errors)[-1]


def _note(
    troubles: dict[Incarnation, DomainError], worker: Incarnation, error: DomainError
) -> None:
    troubles.pop(worker, None)
    troubles[worker] = error

"""A scheduler with the bookkeeping that tests check it by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction

from evalpool_router.scheduler import (
    Dispatch,
    Effect,
    End,
    FailQuestions,
    Kind,
    Recall,
    Registration,
    Request,
    Rules,
    Scheduler,
)
from evalpool_runtime.errors import DomainError
from tests.router.scheduler.choices import Choices
from tests.router.scheduler.leases import Leases
from tests.router.scheduler.turns import Turns

MODEL = "a" * 64
OTHER_MODEL = "b" * 64
ALL_KINDS = frozenset(Kind)
NEVER = 1e9


class HerdModel:
    """Drives a scheduler and keeps, from its effects alone, what is where.

    Attributes:
        failed_at: Workers, with their generation, that have failed a request.
        question_failed_at: The same by request and question.
        blamed: Errors that workers failed with by trouble that may be their own.
        begun: Requests of which a part of the answer has been sent.
        cancelled: Requests whose callers have gone.
        draining: Workers that are to finish and get nothing new, by the operator's word.
        leaving: The same by their own word.
        sent_out: Questions of a request that some worker has been given before.
        turns: Says whose turn it is.
        choices: Says which worker is to get work.
        leases: Says which workers are in the herd.
        is_at_odds: A check of the scheduler's effects has failed, so that nothing more can be said.
    """

    def __init__(self, rules: Rules | None = None) -> None:
        self.now = 100.0
        self.rules = rules or Rules()
        self.scheduler = Scheduler(self.rules, self.now)
        self.dispatched: list[Dispatch] = []
        self.running: dict[int, Dispatch] = {}
        self.done: dict[int, list[int]] = {}
        self.given_up: dict[int, list[int]] = {}
        self.ended: dict[int, DomainError | None] = {}
        self.generations: dict[str, int] = {}
        self.requests: dict[int, Request] = {}
        self.memories: dict[str, int] = {}
        self.only_models: dict[str, frozenset[str]] = {}
        self.failed_at: defaultdict[int, set[tuple[str, int]]] = defaultdict(set)
        self.question_failed_at: defaultdict[tuple[int, int], set[tuple[str, int]]]
        self.question_failed_at = defaultdict(set)
        self.blamed: list[DomainError] = []
        self.begun: set[int] = set()
        self.cancelled: set[int] = set()
        self.sent_out: defaultdict[int, set[int]] = defaultdict(set)
        self.draining: set[str] = set()
        self.leaving: set[str] = set()
        self.turns = Turns(self)
        self.choices = Choices(self)
        self.leases = Leases(self)
        self.is_at_odds = False
        self.taken_back: defaultdict[int, set[int]] = defaultdict(set)

    def carry_out(self, effects: Iterable[Effect]) -> list[Dispatch]:
        new = []
        self.is_at_odds = True
        for effect in effects:
            match effect:
                case Dispatch():
                    self._check(effect)
                    self.turns.had(effect)
                    self.sent_out[effect.request].update(effect.questions)
                    if not self.at(effect.worker):
                        self.leases.got_on(effect.worker)
                    self.running[effect.id] = effect
                    self.dispatched.append(effect)
                    new.append(effect)
                case Recall():
                    self._let_go(self.running[effect.dispatch])
                case FailQuestions():
                    if effect.error in self.blamed:
                        for question in effect.questions:
                            assert self.is_given_up_rightly(effect.request, question)
                    self.given_up[effect.request].extend(effect.questions)
                case End():
                    assert effect.request not in self.ended
                    if effect.error in self.blamed:
                        assert self.is_ended_rightly(effect.request)
                    self.ended[effect.request] = effect.error
        self.is_at_odds = False
        return new

    def _check(self, dispatch: Dispatch) -> None:
        """It may be sent out, it is its turn, and it goes to the worker that is to have it."""
        assert dispatch.id not in self.running
        assert dispatch.request not in self.ended
        assert self.requests[dispatch.request].deadline > self.now
        assert not self.are_tries_used_up(dispatch.request)
        assert self.may_take(dispatch.worker, dispatch.request, dispatch.questions)
        self.assert_takes_new_work(dispatch)
        self.turns.assert_fair(dispatch)
        self.choices.assert_best(dispatch)

    def _let_go(self, dispatch: Dispatch) -> bool:
        """A dispatch is no longer under way; says whether it was."""
        if self.running.pop(dispatch.id, None) is None:
            return False
        self.choices.let_go(dispatch.worker)
        return True

    def join(
        self,
        address: str,
        *,
        slots: int = 2,
        kinds: frozenset[Kind] = ALL_KINDS,
        models: Iterable[str] = (),
        draining: bool = False,
        memory: int = 0,
        only: Iterable[str] = (),
    ) -> list[Dispatch]:
        generation = self.generations.get(address, 0) + 1
        self.generations[address] = generation
        self.memories[address] = memory
        self.only_models[address] = frozenset(only)
        self.leaving.discard(address)
        self._note(self.draining, address, draining)
        self.leases.came(address)
        registration = Registration(
            address, generation, kinds, slots, frozenset(models), draining, memory, frozenset(only)
        )
        effects = self.scheduler.worker_registered(registration, self.now)
        # What is taken from its older generation ends before.
        self.choices.let_go(address)
        return self.carry_out(effects)

    def restate(self, address: str, *, memory: int = 0, only: Iterable[str] = ()) -> list[Dispatch]:
        """A worker registers again under its generation, and says something else of itself."""
        view = self.scheduler.worker(address, self.now)
        assert view is not None
        self.memories[address] = memory
        self.only_models[address] = frozenset(only)
        self.leases.heard_of(address)
        registration = Registration(
            address,
            view.generation,
            view.kinds,
            view.slots,
            view.models,
            address in self.draining,
            memory,
            frozenset(only),
        )
        return self.carry_out(self.scheduler.worker_registered(registration, self.now))

    def score(
        self,
        questions: int,
        *,
        caller: str = "dataset",
        tokens: int = 40,
        model: str = MODEL,
        deadline: float = NEVER,
        multiplier: Fraction = Fraction(1),
        size: int = 0,
    ) -> int:
        return self._submit(
            Kind.EVALUATE,
            (tokens,) * questions,
            caller,
            model,
            deadline,
            multiplier,
            size,
            scoring=True,
        )

    def infer(
        self,
        *,
        caller: str = "someone",
        kind: Kind = Kind.CHAT,
        tokens: int = 100,
        model: str = MODEL,
        deadline: float = NEVER,
        multiplier: Fraction = Fraction(1),
        size: int = 0,
    ) -> int:
        return self._submit(
            kind, (tokens,), caller, model, deadline, multiplier, size, scoring=False
        )

    def _submit(
        self,
        kind: Kind,
        tokens: tuple[int, ...],
        caller: str,
        model: str,
        deadline: float,
        multiplier: Fraction,
        size: int,
        *,
        scoring: bool,
    ) -> int:
        number = len(self.requests) + 1
        request = Request(
            number, caller, kind, model, tokens, deadline, multiplier, scoring, sum(tokens), size
        )
        effects = self.scheduler.submit(request, self.now)
        self.requests[number] = request
        self.turns.came(number)
        self.done[number] = []
        self.given_up[number] = []
        self.carry_out(effects)
        return number

    def answer(
        self, dispatch: Dispatch, questions: Iterable[int] | None = None, *, tokens: int = 0
    ) -> tuple[int, ...]:
        """The worker sends results, of all its questions unless told otherwise."""
        asked = dispatch.questions if questions is None else tuple(questions)
        self.accept(dispatch)
        counting, effects = self.scheduler.questions_finished(
            dispatch.id, asked, self.now, tokens=tokens
        )
        self.done[dispatch.request].extend(counting)
        self.carry_out(effects)
        return counting

    def accept(self, dispatch: Dispatch) -> None:
        """The worker has begun with it."""
        self.scheduler.accepted(dispatch.id, self.now)
        if dispatch.id in self.running:
            self.leases.got_on(dispatch.worker)

    def finish(self, dispatch: Dispatch) -> None:
        """The worker's stream ends well."""
        self._let_go(dispatch)
        self.carry_out(self.scheduler.finished(dispatch.id, self.now))

    def complete(self, dispatch: Dispatch) -> None:
        self.answer(dispatch)
        self.finish(dispatch)

    def lose(self, dispatch: Dispatch) -> None:
        """The worker's stream breaks."""
        self._let_go(dispatch)
        self.carry_out(self.scheduler.lost(dispatch.id, self.now))

    def crash(self, address: str) -> None:
        """The worker's process dies in the midst of all that it is at, and it comes back."""
        for dispatch in self.at(address):
            self.accept(dispatch)
        for dispatch in self.at(address):
            # What is lost may end other dispatches.
            if self._let_go(dispatch):
                self.carry_out(self.scheduler.lost(dispatch.id, self.now, broke_off=True))

    def refuse(self, dispatch: Dispatch) -> None:
        """The worker says that it is busy, once it has been reached."""
        self.accept(dispatch)
        self._let_go(dispatch)
        self.carry_out(self.scheduler.refused(dispatch.id, self.now))

    def fail(self, dispatch: Dispatch, error: DomainError, *, blamed: bool = True) -> None:
        """The worker ends the dispatch with an error, by trouble that may be its own if blamed."""
        self._let_go(dispatch)
        if blamed and self.outstanding(dispatch):
            self.failed_at[dispatch.request].add((dispatch.worker, dispatch.generation))
            self.blamed.append(error)
        self.carry_out(self.scheduler.failed(dispatch.id, error, self.now, blamed=blamed))

    def fail_questions(
        self, dispatch: Dispatch, questions: Iterable[int], error: DomainError
    ) -> None:
        """The worker could not answer some questions, by trouble that may be its own."""
        self.accept(dispatch)
        self.blamed.append(error)
        failing = [question for question in questions if question in self.outstanding(dispatch)]
        for question in failing:
            worker = (dispatch.worker, dispatch.generation)
            self.question_failed_at[dispatch.request, question].add(worker)
        self.taken_back[dispatch.id].update(failing)
        self.carry_out(
            self.scheduler.questions_failed(dispatch.id, dict.fromkeys(questions, error), self.now)
        )

    def send_a_part(self, dispatch: Dispatch) -> None:
        """A part of the answer goes to the caller."""
        self.accept(dispatch)
        self.scheduler.sent(dispatch.id)
        self.begun.add(dispatch.request)

    def cancel(self, request: int) -> None:
        """The caller goes."""
        if request not in self.ended:
            self.cancelled.add(request)
        self.carry_out(self.scheduler.cancel(request, self.now))

    def outstanding(self, dispatch: Dispatch) -> list[int]:
        """Questions that a worker still has to answer."""
        finished = self.done[dispatch.request] + self.given_up[dispatch.request]
        taken_back = self.taken_back[dispatch.id]
        return [q for q in dispatch.questions if q not in finished and q not in taken_back]

    def waiting(self, request: int) -> list[int]:
        """Questions of a request that has not ended which no worker is at."""
        elsewhere = {*self.done[request], *self.given_up[request]}
        for dispatch in self.running.values():
            if dispatch.request == request:
                elsewhere.update(self.outstanding(dispatch))
        return [q for q in range(len(self.requests[request].tokens)) if q not in elsewhere]

    def takes_model(self, address: str, request: int) -> bool:
        """Whether a worker is dedicated to the model of a request, or to none and can hold it."""
        if self.only_models[address]:
            return self.requests[request].model in self.only_models[address]
        return not self.memories[address] or (
            self.memories[address] >= self.requests[request].model_bytes
        )

    def may_take(self, address: str, request: int, questions: Iterable[int]) -> bool:
        """Whether a worker takes the model, and has failed none of these questions."""
        worker = (address, self.generations[address])
        return self.takes_model(address, request) and not any(
            worker in self.failed_at[request] | self.question_failed_at[request, question]
            for question in questions
        )

    def assert_takes_new_work(self, dispatch: Dispatch) -> None:
        """The worker has this generation and does such work, and is not to finish and go."""
        view = self.scheduler.worker(dispatch.worker, self.now)
        assert view is not None
        assert view.generation == dispatch.generation
        assert self.requests[dispatch.request].kind in view.kinds
        assert dispatch.worker not in self.draining | self.leaving

    def are_tries_used_up(self, request: int) -> bool:
        """Whether so many workers have failed a request that no other is to try."""
        return len(self.failed_at[request]) >= self.rules.tries and not self.done[request]

    def is_ended_rightly(self, request: int) -> bool:
        """Whether a request may end with an error that may be the workers' own."""
        return (
            request in self.begun
            or self.are_tries_used_up(request)
            or not self.others(request, self.failed_at[request])
        )

    def is_given_up_rightly(self, request: int, question: int) -> bool:
        """Whether a question may be given up for an error that may be the workers' own."""
        failed_at = self.question_failed_at[request, question]
        return len(failed_at) >= self.rules.tries or not self.others(
            request, failed_at | self.failed_at[request]
        )

    def others(self, request: int, failed_at: set[tuple[str, int]]) -> list[str]:
        """Workers that could take a request, busy or not, but for those that have failed it."""
        return [
            view.address
            for view in self.scheduler.workers(self.now)
            if self.requests[request].kind in view.kinds
            and not view.draining
            and self.takes_model(view.address, request)
            and (view.address, view.generation) not in failed_at
        ]

    def drain(self, address: str, draining: bool) -> None:
        """The operator drains a worker, or lets it take work again."""
        if self.scheduler.worker(address, self.now) is not None:
            self._note(self.draining, address, draining)
        self.carry_out(self.scheduler.drain(address, draining, self.now))

    @staticmethod
    def _note(workers: set[str], address: str, among: bool) -> None:
        (workers.add if among else workers.discard)(address)

    def leave(self, address: str) -> None:
        """A worker says good-bye."""
        self.leases.went(address)
        self.carry_out(self.scheduler.worker_left(address, self.generations[address], self.now))

    def heartbeat(self, address: str, *, computed_tokens: int = 0, **told: object) -> None:
        self._note(self.leaving, address, bool(told.get("leaving")))
        effects = self.scheduler.heartbeat(
            address,
            self.generations[address],
            self.now,
            computed_tokens=computed_tokens,
            **told,  # type: ignore[arg-type]
        )
        self.leases.beat(address, computed_tokens)
        self.carry_out(effects)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.leases.pass_time()
        self.carry_out(self.scheduler.time_passed(self.now))

    def at(self, address: str) -> list[Dispatch]:
        """What runs at a worker, oldest first."""
        return [dispatch for dispatch in self.running.values() if dispatch.worker == address]

    def run_to_the_end(self) -> None:
        """Let all workers answer everything at once until nothing runs."""
        while self.running:
            for dispatch in list(self.running.values()):
                if dispatch.id in self.running:
                    self.complete(dispatch)

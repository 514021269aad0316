"""A scheduler with the bookkeeping that tests check it by."""

from __future__ import annotations

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

MODEL = "a" * 64
OTHER_MODEL = "b" * 64
ALL_KINDS = frozenset(Kind)
NEVER = 1e9


class HerdModel:
    """Drives a scheduler and keeps, from its effects alone, what is where."""

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
        self.progressing: set[int] = set()

    def carry_out(self, effects: Iterable[Effect]) -> list[Dispatch]:
        new = []
        for effect in effects:
            match effect:
                case Dispatch():
                    assert effect.id not in self.running
                    assert effect.request not in self.ended
                    self.running[effect.id] = effect
                    self.dispatched.append(effect)
                    new.append(effect)
                case Recall():
                    del self.running[effect.dispatch]
                case FailQuestions():
                    self.given_up[effect.request].extend(effect.questions)
                case End():
                    assert effect.request not in self.ended
                    self.ended[effect.request] = effect.error
        return new

    def join(
        self,
        address: str,
        *,
        slots: int = 2,
        kinds: frozenset[Kind] = ALL_KINDS,
        models: Iterable[str] = (),
        draining: bool = False,
    ) -> list[Dispatch]:
        generation = self.generations.get(address, 0) + 1
        self.generations[address] = generation
        return self.carry_out(
            self.scheduler.worker_registered(
                Registration(address, generation, kinds, slots, frozenset(models), draining),
                self.now,
            )
        )

    def score(
        self,
        questions: int,
        *,
        caller: str = "dataset",
        tokens: int = 40,
        model: str = MODEL,
        deadline: float = NEVER,
        multiplier: Fraction = Fraction(1),
    ) -> int:
        return self._submit(
            Kind.EVALUATE, (tokens,) * questions, caller, model, deadline, multiplier, scoring=True
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
    ) -> int:
        return self._submit(kind, (tokens,), caller, model, deadline, multiplier, scoring=False)

    def _submit(
        self,
        kind: Kind,
        tokens: tuple[int, ...],
        caller: str,
        model: str,
        deadline: float,
        multiplier: Fraction,
        *,
        scoring: bool,
    ) -> int:
        number = len(self.requests) + 1
        request = Request(
            number, caller, kind, model, tokens, deadline, multiplier, scoring, sum(tokens)
        )
        effects = self.scheduler.submit(request, self.now)
        self.requests[number] = request
        self.done[number] = []
        self.given_up[number] = []
        self.carry_out(effects)
        return number

    def answer(self, dispatch: Dispatch, questions: Iterable[int] | None = None) -> tuple[int, ...]:
        """The worker sends results, of all its questions unless told otherwise."""
        asked = dispatch.questions if questions is None else tuple(questions)
        self.scheduler.accepted(dispatch.id, self.now)
        counting, effects = self.scheduler.questions_finished(dispatch.id, asked, self.now)
        self.done[dispatch.request].extend(counting)
        self.carry_out(effects)
        return counting

    def finish(self, dispatch: Dispatch) -> None:
        """The worker's stream ends well."""
        self.running.pop(dispatch.id, None)
        self.carry_out(self.scheduler.finished(dispatch.id, self.now))

    def complete(self, dispatch: Dispatch) -> None:
        self.answer(dispatch)
        self.finish(dispatch)

    def lose(self, dispatch: Dispatch) -> None:
        """The worker's stream breaks."""
        self.running.pop(dispatch.id, None)
        self.carry_out(self.scheduler.lost(dispatch.id, self.now))

    def refuse(self, dispatch: Dispatch) -> None:
        """The worker says that it is busy."""
        self.running.pop(dispatch.id, None)
        self.carry_out(self.scheduler.refused(dispatch.id, self.now))

    def heartbeat(self, address: str, **told: object) -> None:
        self.carry_out(
            self.scheduler.heartbeat(address, self.generations[address], self.now, **told)  # type: ignore[arg-type]
        )

    def wait(self, seconds: float) -> None:
        self.now += seconds
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

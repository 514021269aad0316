"""What goes into the scheduler and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from evalpool_runtime.errors import DomainError


class Kind(IntEnum):
    """A kind of work. The numbers are those of the contract's WorkerKind."""

    EVALUATE = 1
    CHAT = 2
    JUDGE = 3


class Lane(NamedTuple):
    """Work that the same workers can take.

    Attributes:
        kind: The kind of work.
        scoring: Whether it is packages of questions, of which a worker has only so many at once.
    """

    kind: Kind
    scoring: bool


class Incarnation(NamedTuple):
    """A worker since its registration: what it did under an older generation is not its doing.

    Attributes:
        address: The worker's address.
        generation: The number of the registration.
    """

    address: str
    generation: int


class Requirement(NamedTuple):
    """What a worker must have for some work, beside room for its lane.

    Attributes:
        memory: Bytes that it must give to models at least, unless it is dedicated to the model.
        shunned: Workers that are not to have it.
        model: The digest of the model, where workers are dedicated to it; otherwise empty, so that
            work for all other models is alike.
    """

    memory: int = 0
    shunned: frozenset[Incarnation] = frozenset()
    model: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller wants done.

    Attributes:
        id: The router's number for it.
        caller: Who wants it; callers take turns.
        kind: The workers that may do it.
        model: The digest of the model.
        tokens: Estimated tokens of each unit: of each question, or of the one prompt.
        deadline: When it is given up, in the scheduler's seconds.
        multiplier: What the caller offers to go first, at least 1.
        scoring: Whether it is questions to score, which are sent out in packages.
        size_bytes: What it takes in the router's memory.
        model_bytes: What the model takes in a worker's memory; 0 where unknown.
    """

    id: int
    caller: str
    kind: Kind
    model: str
    tokens: tuple[int, ...]
    deadline: float
    multiplier: Fraction = Fraction(1)
    scoring: bool = False
    size_bytes: int = 0
    model_bytes: int = 0

    @property
    def lane(self) -> Lane:
        """The work that it competes with."""
        return Lane(self.kind, self.scoring)


@dataclass(frozen=True, slots=True)
class Registration:
    """What a worker says of itself.

    Attributes:
        address: The worker's address.
        generation: The number of this registration; grows.
        kinds: The work that it takes and is admitted for.
        slots: Requests that it takes at a time.
        models: Digests of the models that it has loaded.
        draining: Whether the operator lets it drain.
        memory_bytes: What it gives to models; 0 where it does not say, so that any may come.
        only_models: Digests of the models that it is dedicated to: it takes these, whatever their
            size, and no others. Empty: any that its memory holds.
    """

    address: str
    generation: int
    kinds: frozenset[Kind]
    slots: int
    models: frozenset[str] = frozenset()
    draining: bool = False
    memory_bytes: int = 0
    only_models: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Effect: send this to the worker.

    Attributes:
        id: The number of this dispatch, which its results must name.
        request: The request's number.
        worker: The worker's address.
        generation: The worker's generation, which the results must name too.
        questions: Indices of the questions; (0,) for a single prompt.
    """

    id: int
    request: int
    worker: str
    generation: int
    questions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recall:
    """Effect: cancel the dispatch at its worker; what still comes of it does not count."""

    dispatch: int


@dataclass(frozen=True, slots=True)
class FailQuestions:
    """Effect: tell the caller that these questions are given up; the others go on."""

    request: int
    questions: tuple[int, ...]
    error: DomainError


@dataclass(frozen=True, slots=True)
class End:
    """Effect: end the request, well where there is no error."""

    request: int
    error: DomainError | None = None


Effect: TypeAlias = Dispatch | Recall | FailQuestions | End

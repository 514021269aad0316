"""Which workers take new work, busy or not: counted, so that asking walks over none of them."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from evalpool_router.scheduler.memory import Memories
from evalpool_router.scheduler.work import Kind


class Ability(NamedTuple):
    """The new work that a worker takes.

    Attributes:
        kinds: The kinds of work; empty where it takes nothing new.
        memory: Bytes that it gives to models.
        only_models: Digests of the models that it is dedicated to; empty where it is to none.
    """

    kinds: frozenset[Kind] = frozenset()
    memory: int = 0
    only_models: frozenset[str] = frozenset()


NOTHING = Ability()


class Abilities:
    """The new work that workers take.

    Attributes:
        revision: Grows when a worker becomes able to take new work, or no longer is.
    """

    def __init__(self) -> None:
        self.revision = 0
        self._of: dict[str, Ability] = {}
        self._workers: Counter[Kind] = Counter()
        self._memories: dict[Kind, Memories] = {kind: Memories() for kind in Kind}
        self._dedicated: Counter[tuple[Kind, str]] = Counter()

    def note(self, address: str, ability: Ability) -> None:
        """A worker takes this new work from now on; `NOTHING` where it takes none."""
        before = self._of.get(address, NOTHING)
        if ability == before:
            return
        self.revision += 1
        self._count(before, -1)
        self._count(ability, 1)
        if ability.kinds:
            self._of[address] = ability
        else:
            self._of.pop(address, None)

    def any_takes(self, kind: Kind) -> bool:
        """Whether a worker takes new work of a kind, for whatever model."""
        return self._workers[kind] > 0

    def count(self, kind: Kind, model: str, size: int) -> int:
        """Workers that take new work of a kind for a model of so many bytes."""
        return self._memories[kind].holding(size) + self._dedicated[kind, model]

    def largest_memory(self, kind: Kind) -> int:
        """The most bytes that a worker which takes any model for a kind gives; 0 without one."""
        return self._memories[kind].largest()

    def _count(self, ability: Ability, by: int) -> None:
        for kind in ability.kinds:
            self._workers[kind] += by
            for model in ability.only_models:
                self._dedicated[kind, model] += by
                if not self._dedicated[kind, model]:
                    del self._dedicated[kind, model]
            if not ability.only_models and by > 0:
                self._memories[kind].add(ability.memory)
            elif not ability.only_models:
                self._memories[kind].remove(ability.memory)

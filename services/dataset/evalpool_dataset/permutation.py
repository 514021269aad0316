"""The order in which a question's choices are shown to workers.

Workers get choices in an order that tells nothing about the right one, even where a data set always
has the answer first. The order follows from a secret seed and the question, so that a repeated
attempt shows the same order and a worker that knows this code cannot undo it. Runs that share a
seed show all models the same order, which keeps them comparable under `letter`, where small models
favour positions.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Permutation:
    """An order of choices.

    Attributes:
        order: For each place shown, the place in the question; both from 0.
    """

    order: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.order))):
            raise ValueError(f"{self.order} is no permutation")

    def shown(self, items: Sequence[T]) -> tuple[T, ...]:
        """The question's items in the order shown.

        Raises:
            ValueError: There are more or fewer items than places.
        """
        self._check(items)
        return tuple(items[old] for old in self.order)

    def restored(self, items: Sequence[T]) -> tuple[T, ...]:
        """Items in the order shown, back in the question's order: the inverse of `shown`.

        Raises:
            ValueError: There are more or fewer items than places.
        """
        self._check(items)
        by_place = dict(zip(self.order, items, strict=True))
        return tuple(by_place[old] for old in range(len(items)))

    def original(self, place: int) -> int:
        """The place in the question of a place shown, both from 1; 0, no choice, stays 0.

        Raises:
            ValueError: There is no such place.
        """
        if not 0 <= place <= len(self.order):
            raise ValueError(f"place {place} is not among 0 to {len(self.order)}")
        return self.order[place - 1] + 1 if place else 0

    def _check(self, items: Sequence[T]) -> None:
        if len(items) != len(self.order):
            raise ValueError(f"{len(items)} items for {len(self.order)} places")


def permutation(seed: bytes, question: str, choices: int) -> Permutation:
    """The order of a question's choices: a Fisher-Yates shuffle drawn from HMAC-SHA-256.

    Every order is equally likely over seeds: numbers are drawn by rejection, without modulo bias.

    Args:
        seed: Secret, at least 16 bytes.
        question: What names the question within the seed, such as its ordinal.
        choices: How many choices it has.

    Raises:
        ValueError: The seed is too short to be secret.
    """
    if len(seed) < 16:
        raise ValueError(f"the seed has {len(seed)} bytes; give at least 16")
    order = list(range(choices))
    numbers = _bytes(seed, question)
    for last in range(choices - 1, 0, -1):
        swap = _below(last + 1, numbers)
        order[last], order[swap] = order[swap], order[last]
    return Permutation(tuple(order))


def _bytes(seed: bytes, question: str) -> Iterator[int]:
    block = 0
    while True:
        yield from hmac.digest(seed, b"%d:%b" % (block, question.encode()), hashlib.sha256)
        block += 1


def _below(bound: int, numbers: Iterator[int]) -> int:
    limit = 256 - 256 % bound
    return next(number for number in numbers if number < limit) % bound

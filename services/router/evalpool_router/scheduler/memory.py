"""How much memory workers give to models, and how many give how much."""

from __future__ import annotations

from bisect import bisect_left, insort

ENDLESS = 2**63
"""Of a worker that does not say how much: it may hold any model."""

NOBODY = 2**64
"""More than any worker gives."""


class Memories:
    """The memories of some workers, in order."""

    def __init__(self) -> None:
        self._bytes: list[int] = []

    def add(self, memory: int) -> None:
        """Count a worker's memory."""
        insort(self._bytes, memory)

    def remove(self, memory: int) -> None:
        """No longer count a worker's memory."""
        del self._bytes[bisect_left(self._bytes, memory)]

    def holding(self, size: int) -> int:
        """How many workers can hold a model of a size."""
        return len(self._bytes) - bisect_left(self._bytes, size)

    def least_holding(self, size: int) -> int:
        """The least memory that holds a model of a size; NOBODY where none does.

        Sizes with the same answer can be held by the same workers. A size of 0 is not known, and
        any worker may try.
        """
        if not size:
            return 0
        place = bisect_left(self._bytes, size)
        return self._bytes[place] if place < len(self._bytes) else NOBODY

    def largest(self) -> int:
        """The largest memory; 0 without a worker."""
        return self._bytes[-1] if self._bytes else 0


def grade(memory: int) -> int:
    """A number for memories that are much alike, within an eighth; it grows with them."""
    length = memory.bit_length()
    return 8 * length + (memory >> max(length - 4, 0) & 7)

"""A question, the row of every dataset: with answers to choose from, or to be answered freely."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

MIN_CHOICES = 2
MAX_CHOICES = 26
"""One letter of the alphabet a choice."""

LETTERS = string.ascii_uppercase


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a version.

    Attributes:
        ordinal: Its place in the version, from 1.
        context: The situation; may be empty.
        question: The question, never blank.
        choices: The answers to choose from, 2 to 26, none blank. Two may be alike: published data
            sets have such rows. None where it is answered freely.
        answer: The right choice's place, from 1; 0 where the reply is compared with `expected`.
        expected: The replies that are right, none blank, where it is answered freely.
    """

    ordinal: int
    context: str
    question: str
    choices: tuple[str, ...] = ()
    answer: int = 0
    expected: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.ordinal < 1:
            raise ValueError(f"ordinal is {self.ordinal}; questions are counted from 1")
        if not self.question.strip():
            raise ValueError("question is blank")
        if not (self.expected and not self.choices):
            self._check_choices()
        if not all(text.strip() for text in self.expected):
            raise ValueError("an expected reply is blank")
        if self.expected and self.answer:
            raise ValueError("there is a right choice and an expected reply; give one of them")
        if not self.expected and not 1 <= self.answer <= len(self.choices):
            raise ValueError(f"answer is {self.answer}; give 1 to {len(self.choices)}")

    def _check_choices(self) -> None:
        if not MIN_CHOICES <= len(self.choices) <= MAX_CHOICES:
            raise ValueError(
                f"there are {len(self.choices)} choices; give {MIN_CHOICES} to {MAX_CHOICES}"
            )
        if not all(choice.strip() for choice in self.choices):
            raise ValueError("a choice is blank")

    @property
    def letters(self) -> str:
        """The letters of the choices, in order: "ABC" for three."""
        return LETTERS[: len(self.choices)]

    def rearranged(self, order: Sequence[int]) -> Question:
        """The same question with its choices in another order.

        Args:
            order: For each new place, the old one; both from 0.

        Raises:
            ValueError: `order` is no permutation of the choices' places.
        """
        if sorted(order) != list(range(len(self.choices))):
            raise ValueError(f"{list(order)} is no order of {len(self.choices)} choices")
        return replace(
            self,
            choices=tuple(self.choices[old] for old in order),
            answer=list(order).index(self.answer - 1) + 1,
        )

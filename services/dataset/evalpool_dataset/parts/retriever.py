"""The result retrievers: letters to choices, as in the seed, and replies to the texts in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from evalpool_dataset.filters import AS_IT_IS, Pipeline
from evalpool_dataset.parts.base import Spec
from evalpool_dataset.question import LETTERS, Question

_REPLY = re.compile(r"\s*([A-Z])[.)]?\s*")


@dataclass(frozen=True, slots=True)
class LetterRetriever:
    r"""Reads a reply as a letter.

    The rule: the reply is one capital letter of the question's choices, and nothing else but white
    space around it and one "." or ")" directly after it. A is 1, B is 2 and so on; every other
    reply is 0. So "B", " B\n", "B." and "B)" are 2; "N/A", "b", "(B)", "B: yes", "A or B" and ""
    are 0.
    """

    def retrieve(self, reply: str, choices: int) -> int:
        """The choice's place, from 1; 0 where the reply means none."""
        found = _REPLY.fullmatch(reply)
        place = LETTERS.index(found.group(1)) + 1 if found else 0
        return place if place <= choices else 0

    def grammar(self, choices: int) -> str:
        """A GBNF grammar of the letters.

        Raises:
            ValueError: There is no letter for every choice.
        """
        if not 1 <= choices <= len(LETTERS):
            raise ValueError(f"there are {choices} choices; letters stand for 1 to {len(LETTERS)}")
        return f"root ::= [A-{LETTERS[choices - 1]}]"

    def extract(self, reply: str, question: Question) -> Mapping[str, str]:
        """Never asked for: the kinds are not used with `exact_match`.

        Raises:
            ValueError: Always.
        """
        raise ValueError("a letter stands for a choice, and is no text to compare")

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "letter/1"}


@dataclass(frozen=True, slots=True)
class FilteredReply:
    """Takes texts from a reply by filters.

    Attributes:
        pipelines: The ways to a text; the first decides.
    """

    pipelines: tuple[Pipeline, ...] = AS_IT_IS

    def retrieve(self, reply: str, choices: int) -> int:
        """Never asked for: the kinds are not used with `letter`.

        Raises:
            ValueError: Always.
        """
        raise ValueError("there is nothing to choose from")

    def grammar(self, choices: int) -> str:
        """Never asked for: the kinds are not used with `letter`.

        Raises:
            ValueError: Always.
        """
        raise ValueError("there is nothing to choose from")

    def extract(self, reply: str, question: Question) -> Mapping[str, str]:
        """The text that each way comes to, by its name."""
        return {each.name: each.apply(reply, question.choices) for each in self.pipelines}

    def spec(self) -> Spec:
        """For the digest."""
        return {
            "pipelines": [pipeline.spec() for pipeline in self.pipelines],
            "revision": "filtered/1",
        }

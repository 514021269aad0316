"""What a vocabulary's control tokens are written as, where it is to be no more than text.

A template's output is read with control tokens parsed, or no turn would end. A message must not be:
`<|im_end|>` in a document, or in an answer that a judge is to grade, would end its turn and begin
another one in somebody else's name. So a character that stands in none of the messages is put into
each such text before it is rendered, and the output is cut there and read piece by piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from .base import ChatMessage
from .errors import InvalidParametersError

# Of Unicode's private use area, where texts have hardly any.
_MARKS = tuple(map(chr, range(0xE000, 0xF900)))


class ControlTexts:
    """The control texts of one vocabulary.

    Args:
        texts: How its control tokens are written. A single character cannot be broken, and is left
            out.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = frozenset(text for text in texts if len(text) > 1)
        self._lengths = sorted({len(text) for text in self._texts}, reverse=True)
        beginnings = "".join(sorted({text[0] for text in self._texts}))
        self._beginning = re.compile(f"[{re.escape(beginnings)}]") if beginnings else None

    def broken(self, messages: Sequence[ChatMessage]) -> tuple[Sequence[ChatMessage], str]:
        """The messages with every control text in them broken, and the character that breaks them.

        The character is empty where nothing had to be broken.

        Raises:
            InvalidParametersError: There is no character to do that with.
        """
        places = [list(self._places(message.content)) for message in messages]
        if not any(places):
            return messages, ""
        mark = _unused(messages)
        return [
            replace(message, content=_marked(message.content, found, mark))
            for message, found in zip(messages, places, strict=True)
        ], mark

    def _places(self, text: str) -> Iterator[int]:
        """Where control texts begin."""
        if self._beginning is None:
            return
        for found in self._beginning.finditer(text):
            begin = found.start()
            if any(text[begin : begin + length] in self._texts for length in self._lengths):
                yield begin


def _marked(text: str, places: Sequence[int], mark: str) -> str:
    """A text with a character put in after the first one of each place."""
    cuts = [0, *(place + 1 for place in places), len(text)]
    return mark.join(text[a:b] for a, b in pairwise(cuts))


def _unused(messages: Sequence[ChatMessage]) -> str:
    """A character of the private use area that no message has.

    Raises:
        InvalidParametersError: They have all of them.
    """
    used = set().union(*(message.content for message in messages))
    for mark in _MARKS:
        if mark not in used:
            return mark
    raise InvalidParametersError(
        "messages",
        "messages have a control token's text and every character of Unicode's private use area; "
        "leave one of them out.",
    )

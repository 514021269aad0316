"""Bytes of sampled tokens to text that can be shown: whole characters, no part of a stop text."""

from __future__ import annotations

import codecs


class TextStream:
    """Collects bytes and gives out text as soon as it is certain.

    A token may end in the middle of a character, and a stop text may come in several tokens, so
    the end of the text is held back until it is known not to belong to either.

    Args:
        stop: Texts that end the stream; the earliest in the text counts.

    Attributes:
        stopped: Whether a stop text was met; nothing comes after it.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def feed(self, data: bytes) -> str:
        """Add bytes; return what can be given out now, often nothing."""
        return self._advance(self._decoder.decode(data))

    def finish(self) -> str:
        """The rest of the text. Bytes that did not become a whole character are dropped."""
        rest, self._held = self._held, ""
        return rest

    def _advance(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        places = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            given, self._held = self._held[: min(places)], ""
            return given
        keep = self._possible_stop_length()
        cut = len(self._held) - keep
        given, self._held = self._held[:cut], self._held[cut:]
        return given

    def _possible_stop_length(self) -> int:
        """Length of the longest end of the held text that a stop text begins with."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stop):
                return length
        return 0

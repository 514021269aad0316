"""Server-sent events, from the bytes of an answer as they come.

Lines are split in bytes, and only by what the format calls a line's end. An HTTP client's own lines
also end at U+2028 and the like, which may stand in the middle of an event.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .errors import EngineError

_LINE_END = re.compile(rb"\r\n|\n|\r(?=[^\n])")
MOST_EVENT_BYTES = 4 * 1024 * 1024


class EventParser:
    """Collects bytes and gives out the data of whole events."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Add bytes; yield the data of the events that they complete.

        Raises:
            EngineError: They are no UTF-8, or an event is longer than `MOST_EVENT_BYTES`.
        """
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
        for line in lines:
            data = self._line(line)
            if data is not None:
                yield data
        if self._size + len(self._rest) > MOST_EVENT_BYTES:
            raise EngineError(f"The server sent an event of more than {MOST_EVENT_BYTES} bytes.")

    def _line(self, line: bytes) -> str | None:
        if line:
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
                self._size += len(value)
            return None
        data, self._data, self._size = self._data, [], 0
        if not data:
            return None
        try:
            return b"\n".join(data).decode()
        except UnicodeDecodeError as error:
            raise EngineError("The server sent an event that is no UTF-8.") from error

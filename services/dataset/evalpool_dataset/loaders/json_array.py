"""One JSON array of objects, as the seed loads it.

The array is cut into its elements as the bytes come, so that a file of any size takes the memory of
one element. The cutting looks at quotes, brackets and commas alone; each element is then read
strictly.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from enum import Enum, auto

from evalpool_dataset.loaders.json_text import read_object
from evalpool_dataset.loaders.problems import RowProblem, UnreadableFile
from evalpool_dataset.loaders.reading import BYTE_ORDER_MARK, Limits, Row, not_utf8, too_long

_SPACE = b" \t\r\n"
_IN_TEXT = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
# A whole text is passed over in one step; a lone quotation mark is that of an unfinished one.
_OUTSIDE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\],]', re.DOTALL)


class _State(Enum):
    BEFORE = auto()
    INSIDE = auto()
    TEXT = auto()
    ESCAPE = auto()
    AFTER = auto()


class JsonArrayReader:
    """Reads rows from one JSON array."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.line_bytes
        self._state = _State.BEFORE
        self._element = bytearray()
        self._element_line = 1
        self._element_offset = 0
        self._line = 1
        self._offset = 0
        self._depth = 0
        self._elements = 0

    def feed(self, chunk: bytes) -> Iterator[Row | RowProblem]:
        """Give the rows that the bytes complete."""
        start = 0
        if self._state is _State.BEFORE:
            start = self._find_array(chunk)
        while start < len(chunk):
            match self._state:
                case _State.BEFORE:
                    return
                case _State.AFTER:
                    self._refuse_content(chunk[start:])
                    return
                case _State.ESCAPE:
                    self._keep(chunk[start : start + 1])
                    self._state = _State.TEXT
                    start += 1
                case _State.TEXT:
                    start = self._text(chunk, start)
                case _State.INSIDE:
                    start = yield from self._inside(chunk, start)

    def finish(self) -> Iterator[Row | RowProblem]:
        """Check that the array has ended."""
        if self._state is _State.BEFORE:
            raise UnreadableFile(
                RowProblem(0, "", "the file is empty; give a JSON array of at least one question")
            )
        if self._state is not _State.AFTER:
            raise UnreadableFile(
                RowProblem(
                    self._element_line,
                    "",
                    "the file ends within the array, after this row began; it seems to be cut off, "
                    "or a quotation mark or bracket is not closed",
                )
            )
        return iter(())

    def close(self) -> None:
        """Nothing is held."""

    def _find_array(self, chunk: bytes) -> int:
        """Pass over what may stand before the array; give the place after its bracket."""
        for place, byte in enumerate(chunk):
            if byte == ord("["):
                self._note(chunk[: place + 1])
                self._state = _State.INSIDE
                self._element_line = self._line
                return place + 1
            offset = self._offset + place
            if byte not in _SPACE and BYTE_ORDER_MARK[offset : offset + 1] != bytes([byte]):
                raise UnreadableFile(
                    RowProblem(
                        self._line + chunk.count(b"\n", 0, place),
                        "",
                        "the file does not begin with [, so it is no JSON array; if it has one "
                        "object a line, load it as JSON Lines",
                    )
                )
        self._note(chunk)
        return len(chunk)

    def _inside(self, chunk: bytes, start: int) -> Generator[Row | RowProblem, None, int]:
        """Give the rows that end before the chunk, the array or a whole text does."""
        begin = start
        for found in _OUTSIDE.finditer(chunk, start):
            mark = found.group()
            if self._depth == 0 and mark in (b",", b"]"):
                self._keep(chunk[begin : found.start()])
                yield from self._end_element(last=mark == b"]")
                self._offset += 1
                begin = found.end()
                if self._state is _State.AFTER:
                    return begin
            elif mark == b'"':
                # The text goes on in the next chunk.
                self._keep(chunk[begin : found.end()])
                self._state = _State.TEXT
                return found.end()
            elif mark in (b"{", b"["):
                self._depth += 1
            elif mark in (b"}", b"]"):
                # An unopened bracket shows when the element is read.
                self._depth = max(0, self._depth - 1)
        self._keep(chunk[begin:])
        return len(chunk)

    def _text(self, chunk: bytes, start: int) -> int:
        found = _IN_TEXT.match(chunk, start)
        end = found.end() if found else start
        mark = chunk[end : end + 1]
        if mark:
            self._state = _State.INSIDE if mark == b'"' else _State.ESCAPE
        self._keep(chunk[start : end + 1])
        return end + 1

    def _keep(self, part: bytes) -> None:
        if not self._element:
            bare = part.lstrip(_SPACE)
            self._note(part[: len(part) - len(bare)])
            part = bare
            self._element_line, self._element_offset = self._line, self._offset
        if len(self._element) + len(part) > self._limit:
            raise UnreadableFile(too_long(self._element_line, self._limit))
        self._element += part
        self._note(part)

    def _note(self, part: bytes) -> None:
        self._line += part.count(b"\n")
        self._offset += len(part)

    def _end_element(self, *, last: bool) -> Iterator[Row | RowProblem]:
        content = bytes(self._element)
        line, offset = self._element_line, self._element_offset
        self._element.clear()
        self._elements += 1
        if last:
            self._state = _State.AFTER
        if not content:
            if not (last and self._elements == 1):
                yield RowProblem(
                    self._line, "", "a row is missing before or after a comma; remove the comma"
                )
            return
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            yield not_utf8(line, offset, error)
            return
        values = read_object(text, line)
        yield values if isinstance(values, RowProblem) else Row(line, values)

    def _refuse_content(self, rest: bytes) -> None:
        bare = rest.lstrip(_SPACE)
        if bare:
            self._note(rest[: len(rest) - len(bare)])
            raise UnreadableFile(
                RowProblem(
                    self._line,
                    "",
                    "there is content after the array's end; give one array with all of the rows",
                )
            )
        self._note(rest)

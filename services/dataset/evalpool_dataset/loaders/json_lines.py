"""JSON Lines: one object a line. Blank lines are passed over."""

from __future__ import annotations

from collections.abc import Iterator

from evalpool_dataset.loaders.json_text import read_object
from evalpool_dataset.loaders.problems import RowProblem
from evalpool_dataset.loaders.reading import Limits, Line, LineSplitter, Row, not_utf8


class JsonLinesReader:
    """Reads rows from JSON Lines."""

    def __init__(self, limits: Limits) -> None:
        self._lines = LineSplitter(limits.line_bytes)

    def feed(self, chunk: bytes) -> Iterator[Row | RowProblem]:
        """Give the rows that the bytes complete."""
        for line in self._lines.feed(chunk):
            yield from self._row(line)

    def finish(self) -> Iterator[Row | RowProblem]:
        """Give the last row."""
        for line in self._lines.finish():
            yield from self._row(line)

    def close(self) -> None:
        """Nothing is held."""

    def _row(self, line: Line) -> Iterator[Row | RowProblem]:
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            yield not_utf8(line.number, line.offset, error)
            return
        if not text.strip():
            return
        values = read_object(text, line.number)
        yield values if isinstance(values, RowProblem) else Row(line.number, values)

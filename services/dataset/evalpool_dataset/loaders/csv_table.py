"""CSV with a header line, in the form of RFC 4180: commas, cells quoted with " where needed.

Own reading instead of Python's `csv`: that one takes whatever it is given (text after a closing
quote, quotes within bare cells) and has a process-wide limit of a cell's length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from evalpool_dataset.loaders.problems import RowProblem, UnreadableFile
from evalpool_dataset.loaders.reading import (
    Limits,
    Line,
    LineSplitter,
    Row,
    RowForm,
    not_utf8,
    too_long,
)

_CELL = re.compile(r'(?:"([^"]*+(?:""[^"]*+)*+)"|([^",]*))(,|\Z)')


class CsvReader:
    """Reads rows from CSV.

    Args:
        limits: Of one record and the file.
        form: Says which columns are right, and which cells hold lists.
        labelled: The answers come from a separate file.
    """

    def __init__(self, limits: Limits, form: RowForm, *, labelled: bool) -> None:
        self._lines = LineSplitter(limits.line_bytes)
        self._limit = limits.line_bytes
        self._form = form
        self._labelled = labelled
        self._columns: tuple[str, ...] = ()
        self._record: list[bytes] = []
        self._record_bytes = 0
        self._open_quote = False
        self._first: Line | None = None

    def feed(self, chunk: bytes) -> Iterator[Row | RowProblem]:
        """Give the rows that the bytes complete."""
        for line in self._lines.feed(chunk):
            yield from self._line(line)

    def finish(self) -> Iterator[Row | RowProblem]:
        """Give the last row."""
        for line in self._lines.finish():
            yield from self._line(line)
        if self._first is not None:
            raise UnreadableFile(
                RowProblem(
                    self._first.number,
                    "",
                    "a quotation mark that opens in this row is never closed; close it, or write "
                    '"" for a quotation mark within a quoted cell',
                )
            )
        if not self._columns:
            raise UnreadableFile(
                RowProblem(0, "", "the file is empty; give a header line and one row a question")
            )

    def close(self) -> None:
        """Nothing is held."""

    def _line(self, line: Line) -> Iterator[Row | RowProblem]:
        if self._first is None:
            if not line.content.strip():
                return
            self._first = line
        self._record.append(line.content)
        self._record_bytes += len(line.content) + 1
        if self._record_bytes > self._limit + 1:
            raise UnreadableFile(too_long(self._first.number, self._limit))
        # Within a quoted cell a quotation mark is doubled: between rows their count is even.
        self._open_quote ^= line.content.count(b'"') % 2 == 1
        if not self._open_quote:
            first, content = self._first, b"\n".join(self._record)
            self._record, self._record_bytes, self._first = [], 0, None
            yield from self._row(first, content)

    def _row(self, first: Line, content: bytes) -> Iterator[Row | RowProblem]:
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            yield not_utf8(first.number, first.offset, error)
            return
        cells = _cells(text)
        if not self._columns:
            self._read_header(first, cells)
        elif cells is None:
            yield RowProblem(
                first.number,
                "",
                "quotation marks are misplaced in this row; put the whole cell between quotation "
                'marks and write "" for one within it',
            )
        elif len(cells) != len(self._columns):
            yield RowProblem(
                first.number,
                "",
                f"the row has {len(cells)} cells and the header {len(self._columns)}; quote cells "
                "that have a comma, and leave none out",
            )
        else:
            yield from self._values(first.number, dict(zip(self._columns, cells, strict=True)))

    def _read_header(self, line: Line, cells: list[str] | None) -> None:
        names = [name.strip() for name in cells or []]
        if not cells or not all(names):
            raise UnreadableFile(
                RowProblem(line.number, "", "the header has a column without a name; name it")
            )
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UnreadableFile(
                RowProblem(line.number, twice, "the column comes twice; keep one of them")
            )
        if len(names) == 1 and re.search(r"[;\t|]", names[0]):
            raise UnreadableFile(
                RowProblem(line.number, "", "the cells are not separated by commas; use commas")
            )
        wrong = self._form.check_columns(names, labelled=self._labelled)
        if wrong:
            # A wrong header makes every row wrong, so it is told once.
            raise UnreadableFile(
                *(RowProblem(line.number, name, message) for name, message in wrong)
            )
        self._columns = tuple(names)

    def _values(self, line: int, cells: dict[str, str]) -> Iterator[Row | RowProblem]:
        values: dict[str, object] = dict(cells)
        for name in self._form.list_fields & cells.keys():
            if not cells[name]:
                continue
            try:
                values[name] = json.loads(cells[name])
            except (ValueError, RecursionError):
                yield RowProblem(
                    line,
                    name,
                    'the cell is no JSON array; write it as ["one", "two"], quoted for CSV',
                )
                return
        yield Row(line, values)


def _cells(text: str) -> list[str] | None:
    cells: list[str] = []
    place = 0
    while True:
        found = _CELL.match(text, place)
        if not found:
            return None
        quoted, bare, end = found.groups()
        cells.append(bare if quoted is None else quoted.replace('""', '"'))
        if not end:
            return cells
        place = found.end()

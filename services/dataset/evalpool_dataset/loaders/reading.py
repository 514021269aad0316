"""What the readers of the file forms share: rows, limits and lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from evalpool_dataset.loaders.problems import RowProblem, Unit, UnreadableFile
from evalpool_dataset.question import Question

MEBIBYTE = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a loader takes.

    Attributes:
        line_bytes: Bytes of one row at most; the memory that unfinished rows can take.
        file_bytes: Bytes of the whole file at most; of Parquet, its decoded content too.
        questions: Questions at most.
    """

    line_bytes: int = MEBIBYTE
    file_bytes: int = 64 * MEBIBYTE
    questions: int = 200_000


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in the file.

    Attributes:
        line: Where it begins, from 1; see `RowProblem.line`.
        values: Its fields. Empty CSV cells and Parquet nulls are left in.
        unit: What `line` counts.
    """

    line: int
    values: Mapping[str, object]
    unit: Unit = "line"


class RowReader(Protocol):
    """Turns bytes into rows, bit by bit. The problems of single rows are given among the rows."""

    def feed(self, chunk: bytes) -> Iterator[Row | RowProblem]:
        """Take the next bytes; give the rows that they complete.

        Raises:
            UnreadableFile: The rest cannot be told apart.
        """

    def finish(self) -> Iterator[Row | RowProblem]:
        """Take the file's end; give the rows left.

        Raises:
            UnreadableFile: The file is cut off or has no form.
        """

    def close(self) -> None:
        """Drop what is held, such as a temporary file."""


class RowForm(Protocol):
    """What a kind of dataset expects of a row. The kind's loader part."""

    @property
    def answer_field(self) -> str:
        """The field that labels of a separate file are put into."""

    @property
    def answer_fields(self) -> frozenset[str]:
        """Every field that can hold the answer."""

    @property
    def list_fields(self) -> frozenset[str]:
        """Fields that hold a list; in CSV as a JSON array in the cell."""

    def check_columns(self, columns: Sequence[str], *, labelled: bool) -> list[tuple[str, str]]:
        """What is wrong with a table's columns, as pairs of field and message.

        Args:
            columns: The names.
            labelled: The answers come from a separate file.
        """

    def parse(self, row: Row, ordinal: int) -> Question | list[RowProblem]:
        """Turn a row into the question of that place, or say what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end.

    Attributes:
        number: From 1.
        offset: Of its first byte in the file, from 0.
        content: Its bytes.
    """

    number: int
    offset: int
    content: bytes

    def decode(self) -> str:
        """The line's text.

        Raises:
            UnicodeDecodeError: It is no UTF-8.
        """
        return self.content.decode("utf-8")


class LineSplitter:
    r"""Splits bytes into lines at \n or \r\n, holding at most one unfinished line."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._number = 1
        self._offset = 0

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Give the lines that the bytes complete.

        Raises:
            UnreadableFile: A line is longer than the limit.
        """
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._extend(chunk[start:end])
            yield self._take(ended=True)
            start = end + 1
        self._extend(chunk[start:])

    def finish(self) -> Iterator[Line]:
        """Give the last line, where it has no end."""
        if self._pending:
            yield self._take(ended=False)

    def _extend(self, part: bytes) -> None:
        if len(self._pending) + len(part) > self._limit:
            raise UnreadableFile(too_long(self._number, self._limit))
        self._pending += part

    def _take(self, *, ended: bool) -> Line:
        content = bytes(self._pending)
        begin = self._offset
        self._offset += len(content) + ended
        if begin == 0 and content.startswith(BYTE_ORDER_MARK):
            begin = len(BYTE_ORDER_MARK)
            content = content[begin:]
        line = Line(self._number, begin, content.removesuffix(b"\r"))
        self._number += 1
        self._pending.clear()
        return line


def too_long(line: int, limit: int) -> RowProblem:
    """The problem of a row beyond the limit."""
    return RowProblem(
        line,
        "",
        f"the row that begins here is longer than {limit} bytes; split the file into one question "
        "a row, or shorten the row",
    )


def not_utf8(line: int, start: int, error: UnicodeDecodeError) -> RowProblem:
    """The problem of bytes that are no UTF-8.

    Args:
        line: Where the row begins.
        start: The offset in the file of the first byte that was decoded.
        error: What the decoder said.
    """
    byte = error.object[error.start]
    return RowProblem(
        line,
        "",
        f"byte 0x{byte:02x} at offset {start + error.start} of the file is no UTF-8; "
        "save the file as UTF-8",
    )

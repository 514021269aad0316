"""Parquet. Its directory lies at the end, so the file is put aside on disk until it is whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from evalpool_dataset.loaders.problems import RowProblem, UnreadableFile
from evalpool_dataset.loaders.reading import MEBIBYTE, Limits, Row, RowForm

_SPOOLED_IN_MEMORY = 8 * MEBIBYTE
_BATCH_BYTES = 64 * MEBIBYTE


class ParquetReader:
    """Reads rows from Parquet.

    Args:
        limits: Of the file, and of its decoded content: a small file can decode to a huge one.
        form: Says which columns are right.
        labelled: The answers come from a separate file.
    """

    def __init__(self, limits: Limits, form: RowForm, *, labelled: bool) -> None:
        self._limits = limits
        self._form = form
        self._labelled = labelled
        self._file = tempfile.SpooledTemporaryFile(max_size=_SPOOLED_IN_MEMORY)  # noqa: SIM115

    def feed(self, chunk: bytes) -> Iterator[Row | RowProblem]:
        """Put the bytes aside."""
        self._file.write(chunk)
        return iter(())

    def finish(self) -> Iterator[Row | RowProblem]:
        """Give all of the rows."""
        with self._file as content:
            content.seek(0)
            try:
                yield from self._rows(pq.ParquetFile(content))
            except (pa.ArrowException, OSError) as error:
                raise UnreadableFile(
                    RowProblem(
                        0,
                        "",
                        f"the file is no readable Parquet ({_first_line(error)}); write it again",
                    )
                ) from error

    def close(self) -> None:
        """Drop what was put aside."""
        self._file.close()

    def _rows(self, table: pq.ParquetFile) -> Iterator[Row | RowProblem]:
        columns = table.schema_arrow.names
        wrong = self._form.check_columns(columns, labelled=self._labelled)
        if wrong:
            raise UnreadableFile(*(RowProblem(0, name, message) for name, message in wrong))
        number = decoded = 0
        for batch in table.iter_batches(batch_size=_batch_rows(table, self._limits)):
            decoded += batch.nbytes
            if decoded > self._limits.file_bytes:
                raise _too_large(self._limits)
            for values in batch.to_pylist():
                number += 1
                yield Row(number, values, unit="row")


def _batch_rows(table: pq.ParquetFile, limits: Limits) -> int:
    """Rows that are decoded at once: so many that even the largest values fit into memory."""
    largest = 1
    total = 0
    for group in range(table.metadata.num_row_groups):
        rows = table.metadata.row_group(group)
        sizes = [rows.column(c).total_uncompressed_size for c in range(rows.num_columns)]
        largest = max(largest, *sizes, 1)
        total += sum(sizes)
    if total > limits.file_bytes:
        raise _too_large(limits)
    # A dictionary can repeat one value in every row, so each row may take a whole column's bytes.
    return max(1, min(1024, _BATCH_BYTES // largest))


def _too_large(limits: Limits) -> UnreadableFile:
    return UnreadableFile(
        RowProblem(
            0,
            "",
            f"the decoded file is larger than {limits.file_bytes} bytes; split it into datasets",
        )
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")

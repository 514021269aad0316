"""Results in Parquet, with a type for each column."""

from __future__ import annotations

from datetime import UTC
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf.json_format import MessageToJson

from evalpool.dataset.v1 import dataset_pb2

ROWS_A_GROUP = 1000
BYTES_A_GROUP = 16 * 1024 * 1024

_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("question", pa.int32()),
    ("state", pa.string()),
    ("prompt", pa.string()),
    ("correct_answer", pa.int32()),
    ("prediction", pa.int32()),
    ("correct", pa.bool_()),
    ("sum_logprobs", pa.list_(pa.float64())),
    ("reply", pa.string()),
    ("inference_start_time", pa.timestamp("us", tz="UTC")),
    ("inference_end_time", pa.timestamp("us", tz="UTC")),
    ("inference_reference", pa.string()),
    ("latency", pa.duration("us")),
    ("worker", pa.string()),
    ("attempts", pa.int32()),
    ("reason", pa.string()),
    ("engine_build", pa.string()),
    ("predictions", pa.map_(pa.string(), pa.int32())),
    ("points", pa.int32()),
    ("choices", pa.list_(pa.string())),
    ("expected", pa.list_(pa.string())),
    ("extracted", pa.map_(pa.string(), pa.string())),
    ("judging", pa.string()),
)
_NONE_UNLESS_DONE = ("prediction", "correct", "points")
_MOMENTS = ("inference_start_time", "inference_end_time")
_NULLABLE = frozenset((*_NONE_UNLESS_DONE, *_MOMENTS, "latency", "judging"))

SCHEMA = pa.schema([pa.field(name, kind, nullable=name in _NULLABLE) for name, kind in _COLUMNS])
"""The columns: names and order of the contract's fields.

Null: what a question that is not done has none of, so that sums and means are of those that count.
`judging` is a JSON object.
"""


class ParquetResults:
    """Writes results in groups of rows.

    Args:
        file: Where to write.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def write(self, result: dataset_pb2.ListResultsResponse) -> None:
        """Take a row up, and write a group of them where they are enough."""
        self._rows.append(row_of(result))
        self._bytes += result.ByteSize()
        if len(self._rows) == ROWS_A_GROUP or self._bytes >= BYTES_A_GROUP:
            self._write_group()

    def close(self) -> None:
        """Write the last group and what ends the file."""
        if self._rows:
            self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA))
        self._rows, self._bytes = [], 0


def row_of(result: dataset_pb2.ListResultsResponse) -> dict[str, Any]:
    """A result as the values of its columns."""
    done = result.state == dataset_pb2.EVALUATION_STATE_DONE
    row: dict[str, Any] = {
        field.name: getattr(result, field.name)
        for field in result.DESCRIPTOR.fields
        if field.message_type is None and not field.is_repeated
    }
    row["state"] = dataset_pb2.EvaluationState.Name(result.state)
    for name in _NONE_UNLESS_DONE:
        row[name] = row[name] if done else None
    for name in ("sum_logprobs", "choices", "expected"):
        row[name] = list(getattr(result, name))
    for name in ("predictions", "extracted"):
        row[name] = sorted(getattr(result, name).items())
    told = {field.name for field, _ in result.ListFields()}
    for name in _MOMENTS:
        row[name] = getattr(result, name).ToDatetime(tzinfo=UTC) if name in told else None
    row["latency"] = result.latency.ToTimedelta() if "latency" in told else None
    row["judging"] = (
        MessageToJson(result.judging, indent=None, sort_keys=True) if "judging" in told else None
    )
    return row

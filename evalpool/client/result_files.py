"""A run's results as a file, JSON Lines or Parquet: whole, or not there at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import uuid4

from google.protobuf.json_format import MessageToDict

from evalpool.client.connection import Client
from evalpool.client.datasets import results
from evalpool.dataset.v1 import dataset_pb2
from evalpool.values import InvalidValue


class ResultWriter(Protocol):
    """Writes results to a file that is open."""

    def write(self, result: dataset_pb2.ListResultsResponse) -> None:
        """Write one result, perhaps later."""
        ...

    def close(self) -> None:
        """Write what is left; the file stays open."""
        ...


class JsonLines:
    """One object a line, with the contract's field names.

    Args:
        file: Where to write.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, result: dataset_pb2.ListResultsResponse) -> None:
        """Write a line."""
        self._file.write(f"{json_line(result)}\n".encode())

    def close(self) -> None:
        """Nothing is left."""


def json_line(result: dataset_pb2.ListResultsResponse) -> str:
    """A result as one line of JSON, without the line's end."""
    document = MessageToDict(
        result, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps(document, ensure_ascii=False)


async def write_results(
    client: Client, run: str, path: Path, *, progress: Callable[[int], None] | None = None
) -> int:
    """Write a run's results to a file, over restarts of the service.

    They are written beside it and take its place at the end, so that a file of that name is whole,
    and one that was there stays until then.

    Args:
        client: The dataset's owner.
        run: The run's id.
        path: The file; its ending, .jsonl or .parquet, tells its form.
        progress: Called with the results written so far.

    Returns:
        How many results there are.

    Raises:
        InvalidValue: The ending tells no form, or what the form needs is not installed.
        OSError: The file cannot be written.
        grpc.aio.AioRpcError: The service refuses it, or was out of reach for too long.
    """
    writer_to = result_writer(path)
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    count = 0
    try:
        with _opened(part, path) as file:
            with closing(writer_to(file)) as writer:
                async for result in results(client, run):
                    writer.write(result)
                    count += 1
                    if progress is not None:
                        progress(count)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def result_writer(path: Path) -> Callable[[BinaryIO], ResultWriter]:
    """What writes results in the form that a file's ending tells.

    Raises:
        InvalidValue: The ending tells no form, or what the form needs is not installed.
    """
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return JsonLines
        case ".parquet":
            try:
                from evalpool.client.parquet_results import ParquetResults
            except ImportError as error:
                raise InvalidValue(
                    f"{path.name}: Parquet needs pyarrow, which comes with evalpool[dataset]; "
                    "install that, or give a name that ends in .jsonl"
                ) from error
            return ParquetResults
        case _:
            raise InvalidValue(
                f"the ending of {path.name} tells no form; give one of .jsonl, .parquet"
            )


def _opened(part: Path, path: Path) -> BinaryIO:
    try:
        return part.open("xb")
    except OSError as error:
        # Of the two names people know one.
        raise OSError(error.errno, error.strerror, str(path)) from error

"""Datasets: load a file of questions, follow a run."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from evalpool.client.connection import Client
from evalpool.client.watching import resumed
from evalpool.dataset.v1 import dataset_pb2

CHUNK_BYTES = 256 * 1024

FORMATS = {
    ".jsonl": dataset_pb2.DATA_FORMAT_JSON_LINES,
    ".ndjson": dataset_pb2.DATA_FORMAT_JSON_LINES,
    ".json": dataset_pb2.DATA_FORMAT_JSON_ARRAY,
    ".csv": dataset_pb2.DATA_FORMAT_CSV,
    ".parquet": dataset_pb2.DATA_FORMAT_PARQUET,
}
"""The form of a file by its ending."""

FINAL_RUN_STATES = frozenset(
    {dataset_pb2.RUN_STATE_COMPLETE, dataset_pb2.RUN_STATE_FAILED, dataset_pb2.RUN_STATE_UNFUNDED}
)


async def load_file(
    client: Client,
    dataset: str,
    path: Path,
    *,
    data_format: dataset_pb2.DataFormat.ValueType | None = None,
    labels: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> dataset_pb2.LoadDataResponse:
    """Load a file of questions as a new version of a dataset.

    Args:
        client: The dataset's owner.
        dataset: The dataset's id.
        path: The file.
        data_format: Its form. Default: by its ending.
        labels: The file of labels, where they lie apart, as Social IQa's `dev-labels.lst`.
        progress: Called with the bytes sent so far.

    Raises:
        ValueError: The ending says nothing of the form.
        grpc.aio.AioRpcError: The service refused it; the bad rows are in its BadRequest.
    """
    form = data_format or FORMATS.get(path.suffix.lower())
    if form is None:
        raise ValueError(
            f"the ending of {path.name} does not tell its format; name one of jsonl, json, csv, "
            "parquet"
        )

    async def messages() -> AsyncIterator[dataset_pb2.LoadDataRequest]:
        yield dataset_pb2.LoadDataRequest(
            options=dataset_pb2.LoadOptions(
                dataset=dataset,
                format=form,
                source=path.name,
                sha256=_sha256(path),
                labels=labels.read_bytes() if labels else b"",
            )
        )
        sent = 0
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield dataset_pb2.LoadDataRequest(chunk=chunk)
                sent += len(chunk)
                if progress:
                    progress(sent)

    return await client.dataset.LoadData(messages(), timeout=3600)


async def watch_run(client: Client, run: str) -> AsyncIterator[dataset_pb2.Score]:
    """Follow a run until it is complete or has failed, over restarts of the service.

    A service that was restored from a backup is followed from where the run stands there.
    """
    present = await client.dataset.GetScore(dataset_pb2.GetScoreRequest(run=run))
    yield present.score
    if present.score.state in FINAL_RUN_STATES:
        return
    stream = resumed(
        lambda cursor: aiter(
            client.dataset.WatchScores(
                dataset_pb2.WatchScoresRequest(runs=[run], after_cursor=cursor)
            )
        ),
        lambda message: message.cursor,
        cursor_field="after_cursor",
    )
    async for message in stream:
        if not message.HasField("score"):
            continue
        yield message.score
        if message.score.state in FINAL_RUN_STATES:
            return


async def results(client: Client, run: str) -> AsyncIterator[dataset_pb2.ListResultsResponse]:
    """A run's evaluations in the questions' order, over restarts of the service."""
    stream = resumed(
        lambda cursor: aiter(
            client.dataset.ListResults(
                dataset_pb2.ListResultsRequest(run=run, after_question=cursor)
            )
        ),
        lambda message: message.question,
    )
    async for message in stream:
        yield message


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""The dataset service, in the terms of this service's domain."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from evalpool.dataset.v1 import dataset_pb2
from evalpool.errors import CallError
from evalpool_benchmark.entry import RunState, Score
from evalpool_benchmark.peers import peer_error
from evalpool_benchmark.pool import SubjectKind

if TYPE_CHECKING:
    from evalpool.dataset.v1.dataset_pb2_grpc import DatasetServiceAsyncStub

_EVALUATORS = {
    "loglikelihood": dataset_pb2.EVALUATOR_LOGLIKELIHOOD,
    "letter": dataset_pb2.EVALUATOR_LETTER,
    "exact_match": dataset_pb2.EVALUATOR_EXACT_MATCH,
    "judge": dataset_pb2.EVALUATOR_JUDGE,
}
_EVALUATOR_NAMES = {value: name for name, value in _EVALUATORS.items()}
_RUN_STATES = {
    dataset_pb2.RUN_STATE_QUEUED: RunState.QUEUED,
    dataset_pb2.RUN_STATE_RUNNING: RunState.RUNNING,
    dataset_pb2.RUN_STATE_COMPLETE: RunState.COMPLETE,
    dataset_pb2.RUN_STATE_FAILED: RunState.FAILED,
    dataset_pb2.RUN_STATE_UNFUNDED: RunState.UNFUNDED,
}


class CursorAhead(Exception):
    """A peer's changes have not come as far as the cursor: it has gone back to an earlier state."""


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What a pool needs to know of a dataset's newest version.

    Attributes:
        id: The dataset's id.
        title: For people.
        owner: Who owns it.
        version: The version's digest; empty where no questions are loaded.
        question_count: Questions in that version.
        evaluator: The default evaluator's name; empty where it is none that is known here.
        evaluators: The names of those that it can be evaluated by.
        subject_kind: What is evaluated on it.
    """

    id: str
    title: str
    owner: str
    version: str
    question_count: int
    evaluator: str
    evaluators: tuple[str, ...]
    subject_kind: SubjectKind


@dataclass(frozen=True, slots=True)
class SubjectInfo:
    """What an entry needs to know of its subject: a name, and an owner where somebody made it."""

    name: str
    owner: str


class Datasets:
    """The dataset service, as this service uses it.

    Args:
        stub: Calls to it, signed by this service.
        timeout: Seconds that a call may take.
    """

    def __init__(self, stub: DatasetServiceAsyncStub, timeout: float) -> None:
        self._stub = stub
        self._timeout = timeout

    async def dataset(self, dataset: str) -> DatasetInfo:
        """A dataset's newest version.

        Raises:
            PeerUnavailable: It could not be asked.
            PeerRefused: With `not_found` where there is no such dataset.
        """
        request = dataset_pb2.GetDatasetRequest(id=dataset)
        try:
            found = (await self._stub.GetDataset(request, timeout=self._timeout)).dataset
        except grpc.aio.AioRpcError as error:
            raise peer_error(error) from error
        return DatasetInfo(
            id=found.id,
            title=found.title,
            owner=found.owner,
            version=found.version,
            question_count=found.question_count,
            evaluator=_EVALUATOR_NAMES.get(found.evaluator, ""),
            evaluators=tuple(found.evaluators),
            subject_kind=(
                SubjectKind.DOCUMENT_SET if found.HasField("retrieval") else SubjectKind.MODEL
            ),
        )

    async def subject(self, dataset: str, version: str, digest: str) -> SubjectInfo:
        """What would be evaluated on a dataset's version under a digest.

        Raises:
            PeerUnavailable: It could not be asked.
            PeerRefused: There is nothing, or it cannot be evaluated yet; the reason code tells.
        """
        request = dataset_pb2.GetSubjectRequest(dataset=dataset, version=version, subject=digest)
        try:
            found = (await self._stub.GetSubject(request, timeout=self._timeout)).subject
        except grpc.aio.AioRpcError as error:
            raise peer_error(error) from error
        return SubjectInfo(name=found.name, owner=found.owner)

    async def benchmark(
        self,
        *,
        dataset: str,
        version: str,
        subject: str,
        evaluator: str,
        participant: str,
        request_id: str,
    ) -> Score:
        """Start a subject's run, or find the one that exists.

        Raises:
            PeerUnavailable: It is not known whether it was started; repeat it.
            PeerRefused: It cannot be started.
        """
        request = dataset_pb2.BenchmarkRequest(
            dataset=dataset,
            version=version,
            subject=subject,
            evaluator=_EVALUATORS[evaluator],
            participant=participant,
            request_id=request_id,
        )
        try:
            response = await self._stub.Benchmark(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise peer_error(error) from error
        return _score(response.score)

    async def score(self, run: str) -> Score:
        """A run's standing.

        Raises:
            PeerUnavailable: It could not be asked.
            PeerRefused: There is no such run.
        """
        request = dataset_pb2.GetScoreRequest(run=run)
        try:
            response = await self._stub.GetScore(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise peer_error(error) from error
        return _score(response.score)

    async def scores(self, after: int) -> AsyncGenerator[tuple[Score, int], None]:
        """Changes of scores after a cursor, each with the cursor after it.

        Raises:
            PeerUnavailable: The stream has ended; go on from the last cursor.
            CursorAhead: It has not come as far as the cursor; begin anew from 0.
        """
        request = dataset_pb2.WatchScoresRequest(after_cursor=after)
        try:
            async for message in self._stub.WatchScores(request):
                yield _score(message.score), message.cursor
        except grpc.aio.AioRpcError as error:
            refused = {violation.field for violation in CallError.of(error).violations}
            if after and "after_cursor" in refused:
                raise CursorAhead(f"{after} is ahead of the dataset service") from error
            raise peer_error(error) from error


def _score(score: dataset_pb2.Score) -> Score:
    # One that knows of no points gives each right answer one.
    points, full_marks = (
        (score.points, score.full_marks) if score.full_marks else (score.correct, 1)
    )
    return Score(
        run=score.run,
        cursor=score.cursor,
        state=_RUN_STATES.get(score.state, RunState.QUEUED),
        correct=score.correct,
        done=score.done,
        total=score.total,
        points=points,
        full_marks=full_marks,
        queue_position=score.queue_position,
        reason=score.reason,
        reason_code=score.reason_code,
    )

"""A dataset service for the benchmark service's tests: the real contract on a real socket.

It keeps no questions and asks no models; tests say how its runs go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from grpc import aio

from evalpool.common.v1.subject_kind_pb2 import (
    SUBJECT_KIND_DOCUMENT_SET,
    SUBJECT_KIND_MODEL,
    SubjectKind,
)
from evalpool.dataset.v1 import dataset_pb2 as pb
from evalpool.dataset.v1.dataset_pb2_grpc import (
    DatasetServiceServicer,
    add_DatasetServiceServicer_to_server,
)
from evalpool.values import Violation
from evalpool_runtime.error_status import status_of
from evalpool_runtime.errors import (
    DomainError,
    FailedPrecondition,
    Internal,
    InvalidRequest,
    NotFound,
    Unavailable,
    reasons,
)

RunKey = tuple[str, str, str, int]


class DatasetDouble(DatasetServiceServicer):
    """Datasets, subjects and runs as a test sets them up.

    Attributes:
        datasets: By id.
        subjects: By digest.
        embedding: Digests of the document sets that are still being embedded.
        refusals: What Benchmark answers for a subject instead of a run.
        broken: Ids of datasets that GetDataset fails on.
        asked_for_subjects: The requests of GetSubject, in order.
        benchmarked: The requests of Benchmark, in order.
        before_answering: What happens between the start of a run and Benchmark's answer.
        tells_points: Whether scores tell of points; older services' do not.
        endpoint: Where it answers.
    """

    def __init__(self) -> None:
        self.datasets: dict[str, pb.Dataset] = {}
        self.subjects: dict[str, pb.Subject] = {}
        self.embedding: set[str] = set()
        self.refusals: dict[str, DomainError] = {}
        self.broken: set[str] = set()
        self.asked_for_subjects: list[pb.GetSubjectRequest] = []
        self.benchmarked: list[pb.BenchmarkRequest] = []
        self.asked_for_dataset = asyncio.Event()
        self.before_answering: Callable[[pb.BenchmarkRequest], Awaitable[None]] | None = None
        self.tells_points = True
        self.endpoint = ""
        self._reachable = True
        self._runs: dict[RunKey, pb.Score] = {}
        self._cursor = 0
        self._restored = 0
        self._changed = asyncio.Condition()

    def add_dataset(
        self,
        dataset: str,
        owner: str,
        questions: int = 10,
        *,
        graded: bool = False,
        retrieval: bool = False,
    ) -> None:
        """Make a dataset, or a new version of it.

        Args:
            dataset: Its id.
            owner: Who owns it.
            questions: Questions in it.
            graded: Whether a judge grades the answers.
            retrieval: Whether document sets are evaluated on it.
        """
        known = self.datasets.get(dataset)
        version = f"{int(known.version, 16) + 1 if known else 1:064x}"
        self.datasets[dataset] = pb.Dataset(
            id=dataset,
            title=f"The dataset {dataset}",
            owner=owner,
            kind="open_ended" if graded else "siqa",
            evaluator=pb.EVALUATOR_JUDGE if graded else pb.EVALUATOR_LOGLIKELIHOOD,
            evaluators=["judge"] if graded else ["letter", "loglikelihood"],
            version=version,
            question_count=questions,
            retrieval=pb.Retrieval(top_k=4) if retrieval else None,
        )

    def add_model(self, number: int, owner: str = "") -> str:
        """Make a model; returns its digest."""
        return self._add_subject(number, f"model-{number}", owner, SUBJECT_KIND_MODEL)

    def add_document_set(self, number: int, owner: str) -> str:
        """Make a document set; returns its digest."""
        return self._add_subject(number, f"set-{number}", owner, SUBJECT_KIND_DOCUMENT_SET)

    def know_document_set(self, digest: str, name: str, owner: str) -> None:
        """Know of a document set that is somewhere else."""
        self._add_subject(int(digest, 16), name, owner, SUBJECT_KIND_DOCUMENT_SET)

    def _add_subject(self, number: int, name: str, owner: str, kind: SubjectKind.ValueType) -> str:
        digest = f"{number:064x}"
        self.subjects[digest] = pb.Subject(digest=digest, name=name, owner=owner, kind=kind)
        return digest

    def set_reachable(self, reachable: bool) -> None:
        """Answer every call with UNAVAILABLE, or no longer."""
        self._reachable = reachable

    async def set_score(
        self,
        subject: str,
        state: pb.RunState.ValueType,
        *,
        correct: int = 0,
        points: int | None = None,
        done: int | None = None,
        reason: str = "",
        reason_code: str = "",
        **more: Any,
    ) -> None:
        """Move every run of a subject on; a right answer is a point unless points are given."""
        async with self._changed:
            for score in self._runs.values():
                if score.subject != subject:
                    continue
                self._cursor += 1
                complete = score.total if state == pb.RUN_STATE_COMPLETE else 0
                score.MergeFrom(pb.Score(state=state, cursor=self._cursor, **more))
                score.correct = correct
                if self.tells_points:
                    score.points = correct if points is None else points
                score.done = complete if done is None else done
                score.reason = reason
                score.reason_code = reason_code
            self._changed.notify_all()

    async def restore(self, *, without: str) -> None:
        """Go back to an earlier state, as a restored backup does: one without a subject's runs."""
        async with self._changed:
            kept = {key: run for key, run in self._runs.items() if run.subject != without}
            self._runs = kept
            for self._cursor, score in enumerate(kept.values(), start=1):
                score.cursor = self._cursor
            self._restored += 1
            self._changed.notify_all()

    def move_in_queue(self, subject: str, position: int) -> None:
        """Give a subject's runs another place in the queue, as when runs before them end."""
        for score in self._runs.values():
            if score.subject == subject:
                score.queue_position = position

    async def complete(self, subject: str, correct: int, points: int | None = None) -> None:
        """End every run of a subject with a score."""
        await self.set_score(subject, pb.RUN_STATE_COMPLETE, correct=correct, points=points)

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Any) -> Any:
        self.asked_for_dataset.set()
        await self._check(context)
        if request.id in self.broken:
            await _refuse(context, Internal(reasons.ERROR_REASON_INTERNAL, "something broke"))
        if request.id not in self.datasets:
            await _refuse(
                context,
                NotFound(reasons.ERROR_REASON_DATASET_NOT_FOUND, "id: there is no such dataset"),
            )
        return pb.GetDatasetResponse(dataset=self.datasets[request.id])

    async def GetSubject(self, request: pb.GetSubjectRequest, context: Any) -> Any:
        await self._check(context)
        self.asked_for_subjects.append(request)
        dataset = self.datasets.get(request.dataset)
        if dataset is None or int(request.version, 16) > int(dataset.version, 16):
            await _refuse(
                context,
                NotFound(reasons.ERROR_REASON_DATASET_NOT_FOUND, "dataset: there is no such one"),
            )
            return None
        kind, unknown = SUBJECT_KIND_MODEL, reasons.ERROR_REASON_MODEL_NOT_FOUND
        if dataset.HasField("retrieval"):
            kind, unknown = SUBJECT_KIND_DOCUMENT_SET, reasons.ERROR_REASON_DOCUMENT_SET_NOT_FOUND
        found = self.subjects.get(request.subject)
        if found is None or found.kind != kind:
            await _refuse(context, NotFound(unknown, "subject: there is no such one"))
        if request.subject in self.embedding:
            await _refuse(
                context,
                FailedPrecondition(
                    reasons.ERROR_REASON_DOCUMENT_SET_NOT_READY,
                    "subject: 3 of 9 documents are embedded; name it when its state is ready",
                    retry_after=1.0,
                ),
            )
        return pb.GetSubjectResponse(subject=found)

    async def Benchmark(self, request: pb.BenchmarkRequest, context: Any) -> Any:
        await self._check(context)
        self.benchmarked.append(request)
        if request.subject in self.refusals:
            await _refuse(context, self.refusals[request.subject])
        key = (request.dataset, request.version, request.subject, int(request.evaluator))
        score = self._runs.get(key)
        async with self._changed:
            if score is None:
                self._cursor += 1
                score = pb.Score(
                    run=f"run-{len(self._runs) + 1}",
                    dataset=request.dataset,
                    version=request.version,
                    subject=request.subject,
                    evaluator=request.evaluator,
                    state=pb.RUN_STATE_QUEUED,
                    total=self.datasets[request.dataset].question_count,
                    cursor=self._cursor,
                )
                if self.tells_points:
                    graded = request.evaluator == pb.EVALUATOR_JUDGE
                    score.full_marks = 10 if graded else 1
                self._runs[key] = score
            elif score.state in (pb.RUN_STATE_FAILED, pb.RUN_STATE_UNFUNDED):
                self._cursor += 1
                score.state = pb.RUN_STATE_QUEUED
                score.cursor = self._cursor
                score.reason = score.reason_code = ""
            self._changed.notify_all()
        answer = pb.BenchmarkResponse(score=score)
        if self.before_answering is not None:
            await self.before_answering(request)
        return answer

    async def GetScore(self, request: pb.GetScoreRequest, context: Any) -> Any:
        await self._check(context)
        for score in self._runs.values():
            if score.run == request.run:
                return pb.GetScoreResponse(score=score)
        await _refuse(
            context, NotFound(reasons.ERROR_REASON_RUN_NOT_FOUND, "run: there is no such run")
        )
        return None

    async def WatchScores(
        self, request: pb.WatchScoresRequest, context: Any
    ) -> AsyncIterator[pb.WatchScoresResponse]:
        await self._check(context)
        cursor, restored = request.after_cursor, self._restored
        if cursor > self._cursor:
            ahead = Violation("after_cursor", f"it is {cursor}, and this is at {self._cursor}")
            await _refuse(context, InvalidRequest([ahead]))
        while True:
            async with self._changed:
                while self._cursor <= cursor and self._restored == restored:
                    await self._changed.wait()
                if self._restored != restored:
                    await _refuse(context, Unavailable(reasons.ERROR_REASON_UNAVAILABLE, "stopped"))
                news = [score for score in self._runs.values() if score.cursor > cursor]
            for score in sorted(news, key=lambda score: score.cursor):
                cursor = score.cursor
                yield pb.WatchScoresResponse(score=score, cursor=cursor)

    async def _check(self, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        assert metadata.get("authorization", "").startswith("Bearer "), "every call is signed"
        if not self._reachable:
            await _refuse(
                context, Unavailable(reasons.ERROR_REASON_UNAVAILABLE, "it is being restarted")
            )


@asynccontextmanager
async def running_double() -> AsyncIterator[DatasetDouble]:
    """A dataset service double on 127.0.0.1, port 0."""
    # What a test does not need stays unimplemented, as the generated base has it.
    double = DatasetDouble()  # type: ignore[abstract]
    server = aio.server()
    add_DatasetServiceServicer_to_server(double, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    double.endpoint = f"127.0.0.1:{port}"
    try:
        yield double
    finally:
        await server.stop(None)


async def _refuse(context: Any, error: DomainError) -> None:
    await context.abort_with_status(status_of(error))


__all__ = ["DatasetDouble", "running_double"]

"""The token service and the dataset service, in the terms of this service's domain.

Everything that gRPC may answer becomes a value or one of two exceptions: `PeerUnavailable`, where a
later try may succeed, and `PeerRefused`, where the peer has decided.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from evalpool.common.v1 import service_info_pb2
from evalpool.dataset.v1 import dataset_pb2
from evalpool.errors import CallError
from evalpool.token.v1 import token_pb2
from evalpool.values import Tag
from evalpool_benchmark.entry import RunState, Score
from evalpool_benchmark.funding import Credit
from evalpool_runtime.protobuf import from_timestamp

if TYPE_CHECKING:
    from evalpool.dataset.v1.dataset_pb2_grpc import DatasetServiceAsyncStub
    from evalpool.token.v1.token_pb2_grpc import TokenServiceAsyncStub

_RETRYABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.DATA_LOSS,
        # Tokens lapse and keys are set up: nothing that the peer has decided about the content.
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
_NOT_ALLOWED = "NOT_ALLOWED"

_EVALUATORS = {
    "loglikelihood": dataset_pb2.EVALUATOR_LOGLIKELIHOOD,
    "letter": dataset_pb2.EVALUATOR_LETTER,
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


class PeerUnavailable(Exception):
    """A peer could not be reached, or could not answer now."""


class PeerRefused(Exception):
    """A peer has refused a request, and would again.

    Attributes:
        not_found: True where what was asked for does not exist.
        reason: The peer's sentence.
        reason_code: The name of its error reason; empty where it gave none.
    """

    def __init__(self, code: grpc.StatusCode, reason: str, reason_code: str) -> None:
        super().__init__(f"{code.name} {reason_code}: {reason}")
        self.not_found = code is grpc.StatusCode.NOT_FOUND
        self.reason = reason
        self.reason_code = reason_code


class CursorAhead(Exception):
    """A peer's changes have not come as far as the cursor: it has gone back to an earlier state."""


@dataclass(frozen=True, slots=True)
class NoticeRead:
    """One message of the ledger's notices: a credit, or nothing of interest, and the cursor."""

    credit: Credit | None
    cursor: int


@dataclass(frozen=True, slots=True)
class Payment:
    """One transfer to make."""

    recipient: str
    quantity: int
    tags: tuple[Tag, ...]


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
    """

    id: str
    title: str
    owner: str
    version: str
    question_count: int
    evaluator: str
    evaluators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SubjectInfo:
    """What an entry needs to know of its subject: a name, and an owner where it was uploaded."""

    name: str
    owner: str


class Ledger:
    """The token service, as this service uses it.

    Args:
        stub: Calls to it, signed by this service.
        address: This service's own address.
        timeout: Seconds that a call may take.
    """

    def __init__(self, stub: TokenServiceAsyncStub, address: str, timeout: float) -> None:
        self._stub = stub
        self._address = address
        self._timeout = timeout

    async def notices(self, after: int) -> AsyncGenerator[NoticeRead, None]:
        """This service's notices after a cursor, as long as the stream lasts.

        Raises:
            PeerUnavailable: The stream has ended; go on from the last cursor.
        """
        request = token_pb2.WatchNoticesRequest(after_sequence=after)
        try:
            async for message in self._stub.WatchNotices(request):
                credit = None
                if message.notice.kind == token_pb2.NOTICE_KIND_CREDIT:
                    credit = _credit(message.notice.transfer)
                yield NoticeRead(credit, message.cursor)
        except grpc.aio.AioRpcError as error:
            raise _peer_error(error) from error

    async def credit(self, transfer: str) -> Credit | None:
        """The credit that a transfer made to this service, or None where there is no such transfer.

        Raises:
            PeerUnavailable: It could not be asked.
        """
        request = token_pb2.GetTransferRequest(id=transfer)
        try:
            response = await self._stub.GetTransfer(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            refusal = _peer_error(error)
            if isinstance(refusal, PeerRefused) and refusal.not_found:
                return None
            raise refusal from error
        if response.transfer.recipient != self._address:
            return None
        return _credit(response.transfer)

    async def pay(self, payment: Payment, request_id: str) -> str:
        """Make one transfer, once for all repeats under its request id.

        Returns:
            The transfer's id.

        Raises:
            PeerUnavailable: It is not known whether it was made; repeat it.
            PeerRefused: It was not made.
        """
        request = token_pb2.TransferRequest(
            recipient=payment.recipient,
            quantity=str(payment.quantity),
            tags=[_tag(tag) for tag in payment.tags],
            request_id=request_id,
        )
        try:
            response = await self._stub.Transfer(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise _peer_error(error) from error
        return response.transfer.id

    async def max_batch(self) -> int:
        """Transfers that it takes in one batch at most.

        Raises:
            PeerUnavailable: It could not be asked.
        """
        try:
            info = await self._stub.GetInfo(token_pb2.GetInfoRequest(), timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise _peer_error(error) from error
        return info.limits.max_batch_transfers

    async def pay_all(self, payments: Sequence[Payment], request_id: str) -> list[str]:
        """Make up to `max_batch` transfers, all or none, once for all repeats under the request id.

        Returns:
            The transfers' ids, in the order of the payments.

        Raises:
            PeerUnavailable: It is not known whether they were made; repeat them.
            PeerRefused: None was made.
        """
        request = token_pb2.TransferBatchRequest(
            transfers=[
                token_pb2.BatchTransfer(
                    recipient=payment.recipient,
                    quantity=str(payment.quantity),
                    tags=[_tag(tag) for tag in payment.tags],
                )
                for payment in payments
            ],
            request_id=request_id,
        )
        # A large batch takes the ledger longer.
        timeout = self._timeout + len(payments) / 100
        try:
            response = await self._stub.TransferBatch(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise _peer_error(error) from error
        return [transfer.id for transfer in response.transfers]


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
            raise _peer_error(error) from error
        return DatasetInfo(
            id=found.id,
            title=found.title,
            owner=found.owner,
            version=found.version,
            question_count=found.question_count,
            evaluator=_EVALUATOR_NAMES.get(found.evaluator, ""),
            evaluators=tuple(found.evaluators),
        )

    async def subject(self, digest: str) -> SubjectInfo:
        """What can be entered under a digest.

        Raises:
            PeerUnavailable: It could not be asked.
            PeerRefused: With `not_found` where there is nothing.
        """
        request = dataset_pb2.GetModelRequest(digest=digest)
        try:
            found = (await self._stub.GetModel(request, timeout=self._timeout)).model
        except grpc.aio.AioRpcError as error:
            raise _peer_error(error) from error
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
            raise _peer_error(error) from error
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
            raise _peer_error(error) from error
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
            raise _peer_error(error) from error


def _peer_error(error: grpc.aio.AioRpcError) -> PeerUnavailable | PeerRefused:
    told = CallError.of(error)
    if told.code in _RETRYABLE or told.reason == _NOT_ALLOWED:
        return PeerUnavailable(f"{told.code.name} {told.reason}: {told.message}")
    return PeerRefused(told.code, told.message, told.reason)


def _credit(transfer: token_pb2.Transfer) -> Credit:
    return Credit(
        transfer=transfer.id,
        payer=transfer.sender,
        quantity=int(transfer.quantity),
        tags=tuple(Tag(tag.name, tag.value) for tag in transfer.tags),
        time=from_timestamp(transfer.commit_time),
        sequence=transfer.sequence,
    )


def _score(score: dataset_pb2.Score) -> Score:
    return Score(
        run=score.run,
        cursor=score.cursor,
        state=_RUN_STATES.get(score.state, RunState.QUEUED),
        correct=score.correct,
        done=score.done,
        total=score.total,
        queue_position=score.queue_position,
        reason=score.reason,
        reason_code=score.reason_code,
    )


def _tag(tag: Tag) -> service_info_pb2.Tag:
    return service_info_pb2.Tag(name=tag.name, value=tag.value)

"""The herd, asked over the router: choices scored, or letters replied."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from evalpool.errors import CallError
from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool_dataset.inquiry import Asked, read_reply, score
from evalpool_dataset.outcome import Answered, Outcome, Started, Unanswered, UnforeseenAnswer
from evalpool_dataset.parts import Evaluator
from evalpool_dataset.scoring import UnusableScores
from evalpool_dataset.store.definitions import Model
from evalpool_dataset.store.evaluations import Answer
from evalpool_runtime.clock import Clock
from evalpool_runtime.errors import NotFound, reason_name, reasons
from evalpool_runtime.protobuf import from_timestamp

CALL_SECONDS = 6 * 3600.0
REPLY_SECONDS = 1800.0
LOOK_UP_SECONDS = 30.0

REQUEST_BYTES = 4 * 1024 * 1024

_HOLD_REFUSED = reason_name(reasons.ERROR_REASON_HOLD_REFUSED)
_NOT_RETRYABLE = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)


class Herd:
    """The router, as the dataset service sees it.

    Args:
        stub: The router.
        router_address: Its address: what answers for models.
        clock: What time it is.
        concurrent_replies: Replies that one chunk waits for at a time.
    """

    def __init__(
        self,
        stub: router_pb2_grpc.RouterServiceAsyncStub,
        router_address: str,
        clock: Clock,
        concurrent_replies: int,
    ) -> None:
        self._stub = stub
        self._router_address = router_address
        self._clock = clock
        self._concurrent_replies = concurrent_replies

    async def find_model(self, digest: str) -> Model:
        """The model with a digest, as the herd knows it.

        Raises:
            NotFound: It is neither in the catalogue nor in the repository.
        """
        try:
            response = await self._stub.GetModel(
                router_pb2.GetModelRequest(model=digest), timeout=LOOK_UP_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            raise NotFound(
                reasons.ERROR_REASON_MODEL_NOT_FOUND,
                f"the herd knows no model with the digest {digest}; name one of "
                "`evalpool model list`, or upload yours with `evalpool model push`",
                digest=digest,
            ) from error
        found = response.model
        return Model(
            id=0,
            name=found.name,
            inference_process=self._router_address,
            digest=found.digest,
            source=found.source,
            owner=found.owner,
            size_bytes=found.size_bytes,
        )

    async def evaluate(
        self, evaluator: Evaluator, model_digest: str, asked: dict[int, Asked], reference: str
    ) -> AsyncIterator[Outcome]:
        """Yield what becomes of each question, by the evaluation's number."""
        if evaluator is Evaluator.LOGLIKELIHOOD:
            outcomes = self._score(model_digest, asked, reference)
        else:
            outcomes = self._replies(model_digest, asked, reference)
        async for outcome in outcomes:
            yield outcome

    async def _score(
        self, model_digest: str, asked: dict[int, Asked], reference: str
    ) -> AsyncIterator[Outcome]:
        numbers = {str(number): number for number in asked}

        def number_of(name: str) -> int:
            if name not in numbers:
                raise UnforeseenAnswer(f'the herd answered for "{name}", which it was not asked')
            return numbers[name]

        for request in _requests(model_digest, asked, reference):
            async for message in self._stub.ScoreChoices(request, timeout=CALL_SECONDS):
                if message.HasField("started"):
                    yield Started(tuple(map(number_of, message.started.ids)))
                for result in message.results.results:
                    number = number_of(result.id)
                    if not result.HasField("failure"):
                        other = _another_model(number, model_digest, result.provenance)
                        if other is not None:
                            yield other
                            continue
                    yield self._scored(number, asked[number], result, reference)

    def _scored(
        self, number: int, asked: Asked, result: inference_pb2.QuestionResult, reference: str
    ) -> Answered | Unanswered:
        if result.HasField("failure"):
            failure = result.failure
            return Unanswered(number, failure.message, failure.reason_code, failure.retryable)
        try:
            scored = score(asked, [choice.sum_logprob for choice in result.scores])
        except UnusableScores as error:
            # The machinery's failure, never a wrong answer.
            return Unanswered(
                number, str(error), reason_name(reasons.ERROR_REASON_ENGINE_FAILED), retryable=True
            )
        now = self._clock.now()
        return Answered(
            id=number,
            prediction=scored.prediction,
            answer=Answer(
                prompt=asked.continuations.prompt,
                sum_logprobs=scored.sums,
                predictions=scored.predictions,
                reply=None,
                start_time=_moment(result.start_time, now),
                end_time=_moment(result.end_time, now),
                reference=reference,
                worker=result.provenance.worker,
                engine_build=result.provenance.engine_build,
            ),
            provenance=provenance_document(result.provenance),
            alike=scored.alike,
            compared=scored.compared,
        )

    async def _replies(
        self, model_digest: str, asked: dict[int, Asked], reference: str
    ) -> AsyncIterator[Outcome]:
        outcomes: asyncio.Queue[Outcome | BaseException | None] = asyncio.Queue()
        places = asyncio.Semaphore(self._concurrent_replies)

        refused: list[grpc.aio.AioRpcError] = []

        async def one(number: int) -> None:
            async with places:
                if refused:
                    return
                try:
                    async for outcome in self._reply(
                        number, model_digest, asked[number], reference
                    ):
                        outcomes.put_nowait(outcome)
                except grpc.aio.AioRpcError as error:
                    # Those that a worker is at go on to their end; the others are not asked.
                    refused.append(error)

        async def everything() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    for number in asked:
                        group.create_task(one(number))
                outcomes.put_nowait(refused[0] if refused else None)
            except BaseExceptionGroup as errors:
                outcomes.put_nowait(errors.exceptions[0])

        working = asyncio.create_task(everything())
        try:
            while (outcome := await outcomes.get()) is not None:
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _reply(
        self, number: int, model_digest: str, asked: Asked, reference: str
    ) -> AsyncIterator[Outcome]:
        conversation = asked.conversation
        request = inference_pb2.InferRequest(
            model=inference_pb2.ModelReference(digest=model_digest),
            system_prompt=conversation.system,
            sampling=inference_pb2.Sampling(
                max_tokens=asked.parts.evaluator.max_tokens, temperature=0, grammar=asked.grammar
            ),
            reference=f"{reference}/{number}",
        )
        request.chat.messages.add(role="user", content=conversation.user)
        started: datetime | None = None
        pieces: list[str] = []
        try:
            async for message in self._stub.Infer(request, timeout=REPLY_SECONDS):
                if started is None:
                    started = self._clock.now()
                    yield Started((number,))
                if message.HasField("chunk"):
                    pieces.append(message.chunk.text)
                elif message.HasField("complete"):
                    reply = "".join(pieces)
                    origin = message.complete.provenance
                    other = _another_model(number, model_digest, origin)
                    if other is not None:
                        yield other
                        return
                    yield Answered(
                        id=number,
                        prediction=read_reply(asked, reply),
                        answer=Answer(
                            prompt=f"{conversation.system}\n\n{conversation.user}".lstrip(),
                            sum_logprobs=None,
                            predictions=None,
                            reply=reply,
                            start_time=started,
                            end_time=self._clock.now(),
                            reference=request.reference,
                            worker=origin.worker,
                            engine_build=origin.engine_build,
                        ),
                        provenance=provenance_document(origin),
                    )
        except grpc.aio.AioRpcError as error:
            problem = CallError.of(error)
            # Before a worker has begun, the whole chunk waits; after that, this question fails.
            waits = problem.code not in _NOT_RETRYABLE or problem.reason == _HOLD_REFUSED
            if started is None and waits:
                raise
            yield Unanswered(
                number, problem.message, problem.reason, problem.code not in _NOT_RETRYABLE
            )


def _another_model(number: int, wanted: str, origin: inference_pb2.Provenance) -> Unanswered | None:
    """Of each question only a result by the model with the run's digest counts."""
    if origin.model_digest == wanted:
        return None
    return Unanswered(
        number,
        f"the answer came from the model {origin.model_digest or 'without a digest'}",
        reason_name(reasons.ERROR_REASON_ENGINE_FAILED),
        retryable=True,
    )


def provenance_document(origin: inference_pb2.Provenance) -> dict[str, Any]:
    """What gave an answer, as the run records it: nothing of the single dispatch."""
    document: dict[str, Any] = MessageToDict(origin, preserving_proto_field_name=True)
    for passing in ("dispatch", "generation", "worker"):
        document.pop(passing, None)
    return document


def _requests(
    model_digest: str, asked: dict[int, Asked], reference: str
) -> Iterator[inference_pb2.ScoreChoicesRequest]:
    """The questions in requests that a message has room for."""
    request = inference_pb2.ScoreChoicesRequest()
    size = 0
    for number, question in asked.items():
        texts = question.continuations
        item = inference_pb2.ChoiceQuestion(
            id=str(number), prompt=texts.prompt, choices=texts.texts
        )
        if not request.questions or size + item.ByteSize() > REQUEST_BYTES:
            if request.questions:
                yield request
            request = inference_pb2.ScoreChoicesRequest(
                model=inference_pb2.ModelReference(digest=model_digest), reference=reference
            )
            size = 0
        request.questions.append(item)
        size += item.ByteSize()
    if request.questions:
        yield request


def _moment(message: Timestamp, otherwise: datetime) -> datetime:
    return from_timestamp(message) if message.seconds else otherwise

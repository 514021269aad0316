"""The herd, asked over the router: choices scored, or letters replied."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from evalpool.errors import CallError
from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool_dataset.inquiry import Asked, read_reply, score
from evalpool_dataset.parts import Evaluator
from evalpool_dataset.runner import Answered, Outcome, Started, Unanswered
from evalpool_dataset.scoring import UnusableScores
from evalpool_dataset.store.definitions import Model
from evalpool_dataset.store.evaluations import Answer
from evalpool_runtime.clock import Clock
from evalpool_runtime.errors import NotFound, reason_name, reasons
from evalpool_runtime.protobuf import from_timestamp

CALL_SECONDS = 6 * 3600.0
REPLY_SECONDS = 1800.0
LOOK_UP_SECONDS = 30.0

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
        request = inference_pb2.ScoreChoicesRequest(
            model=inference_pb2.ModelReference(digest=model_digest), reference=reference
        )
        for number, question in asked.items():
            texts = question.continuations
            request.questions.add(id=str(number), prompt=texts.prompt, choices=texts.texts)
        async for message in self._stub.ScoreChoices(request, timeout=CALL_SECONDS):
            if message.HasField("started"):
                yield Started(tuple(int(name) for name in message.started.ids))
            for result in message.results.results:
                yield _scored(asked[int(result.id)], result, reference)

    async def _replies(
        self, model_digest: str, asked: dict[int, Asked], reference: str
    ) -> AsyncIterator[Outcome]:
        outcomes: asyncio.Queue[Outcome | BaseException | None] = asyncio.Queue()
        places = asyncio.Semaphore(self._concurrent_replies)

        async def one(number: int) -> None:
            async with places:
                async for outcome in self._reply(number, model_digest, asked[number], reference):
                    outcomes.put_nowait(outcome)

        async def everything() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    for number in asked:
                        group.create_task(one(number))
                outcomes.put_nowait(None)
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
            if started is None and problem.code not in _NOT_RETRYABLE:
                raise
            yield Unanswered(
                number, problem.message, problem.reason, problem.code not in _NOT_RETRYABLE
            )


def provenance_document(origin: inference_pb2.Provenance) -> dict[str, Any]:
    """What gave an answer, as the run records it: nothing of the single dispatch."""
    document: dict[str, Any] = MessageToDict(origin, preserving_proto_field_name=True)
    for passing in ("dispatch", "generation", "worker"):
        document.pop(passing, None)
    return document


def _scored(
    asked: Asked, result: inference_pb2.QuestionResult, reference: str
) -> Answered | Unanswered:
    number = int(result.id)
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
    return Answered(
        id=number,
        prediction=scored.prediction,
        answer=Answer(
            prompt=asked.continuations.prompt,
            sum_logprobs=scored.sums,
            predictions=scored.predictions,
            reply=None,
            start_time=_moment(result.start_time),
            end_time=_moment(result.end_time),
            reference=reference,
            worker=result.provenance.worker,
            engine_build=result.provenance.engine_build,
        ),
        provenance=provenance_document(result.provenance),
        alike=scored.alike,
        compared=scored.compared,
    )


def _moment(message: Any) -> datetime:
    return from_timestamp(message) if message.seconds else datetime.now(UTC)

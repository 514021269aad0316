"""The herd, asked over the router: choices scored, or letters replied."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from evalpool.errors import CallError
from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool_dataset.inquiry import Asked, read_reply, score
from evalpool_dataset.outcome import Answer, Answered, Outcome, Started, Unanswered
from evalpool_dataset.parts import Evaluator
from evalpool_dataset.problem import (
    DEADLINE_EXCEEDED,
    ENGINE_FAILED,
    UNAVAILABLE,
    CallEnded,
    Problem,
)
from evalpool_dataset.purse import Purse
from evalpool_dataset.scoring import UnusableScores
from evalpool_dataset.store.definitions import Model
from evalpool_dataset.wait import Wait
from evalpool_runtime.clock import Clock
from evalpool_runtime.protobuf import from_timestamp

CALL_SECONDS = 6 * 3600.0
REPLY_SECONDS = 1800.0
LOOK_UP_SECONDS = 30.0

REQUEST_BYTES = 4 * 1024 * 1024

_WHOLE = frozenset({inference_pb2.FINISH_REASON_STOP, inference_pb2.FINISH_REASON_LENGTH})
"""How a reply ends that the model itself has ended, or was to end there."""

_REASONS_OF_CODES = {
    grpc.StatusCode.DEADLINE_EXCEEDED: DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE: UNAVAILABLE,
}
"""What the call itself says, where it ended without the router's word."""


class Herd:
    """The router, as the dataset service sees it.

    Args:
        stub: The router.
        router_address: Its address: what answers for models.
        purse: Asks it, and pays where that costs something.
        clock: What time it is.
        concurrent_replies: Replies that one chunk waits for at a time.
    """

    def __init__(
        self,
        stub: router_pb2_grpc.RouterServiceAsyncStub,
        router_address: str,
        purse: Purse,
        clock: Clock,
        concurrent_replies: int,
    ) -> None:
        self._stub = stub
        self._router_address = router_address
        self._purse = purse
        self._clock = clock
        self._concurrent_replies = concurrent_replies

    async def find_model(self, digest: str) -> Model | None:
        """The model with a digest; None where neither catalogue nor repository has it."""
        try:
            response = await self._stub.GetModel(
                router_pb2.GetModelRequest(model=digest), timeout=LOOK_UP_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
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
        """Yield what becomes of each question, by the evaluation's number.

        Raises:
            CallEnded: The herd ended the call before every question had its outcome.
        """
        if evaluator is Evaluator.LOGLIKELIHOOD:
            outcomes = self._score(model_digest, asked, reference)
        else:
            outcomes = self._replies(model_digest, asked, reference)
        async for outcome in outcomes:
            yield outcome

    async def _score(
        self, model_digest: str, asked: dict[int, Asked], reference: str
    ) -> AsyncIterator[Outcome]:
        names = {str(number): number for number in asked}
        for request in _requests(model_digest, asked, reference):
            wait = Wait()
            answers = self._purse.ask(
                request, partial(self._stub.ScoreChoices, timeout=CALL_SECONDS)
            )
            try:
                async with aclosing(answers) as messages:
                    async for message in messages:
                        waiting = wait.heard(_waited_for(message), self._clock.monotonic())
                        if waiting is not None:
                            yield waiting
                        if message.HasField("started"):
                            ids = message.started.ids
                            yield Started(tuple(_number(name, names) for name in ids))
                        for result in message.results.results:
                            number = _number(result.id, names)
                            question = asked[number]
                            yield self._scored(number, model_digest, question, result, reference)
            except grpc.aio.AioRpcError as error:
                raise CallEnded(_problem(error)) from error

    def _scored(
        self,
        number: int,
        model_digest: str,
        asked: Asked,
        result: inference_pb2.QuestionResult,
        reference: str,
    ) -> Answered | Unanswered:
        if result.HasField("failure"):
            failure = result.failure
            return Unanswered(
                number, Problem(failure.message, failure.reason_code, failure.retryable)
            )
        if result.provenance.model_digest != model_digest:
            return Unanswered(number, _another_model(result.provenance))
        try:
            scored = score(asked, [choice.sum_logprob for choice in result.scores])
        except UnusableScores as error:
            # The machinery's failure, never a wrong answer.
            return Unanswered(number, Problem(str(error), ENGINE_FAILED))
        now = self._clock.now()
        return Answered(
            id=number,
            prediction=scored.prediction,
            answer=Answer(
                prompt=asked.parts.prompt.continuations(asked.question).shown,
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
        outcomes: asyncio.Queue[Outcome | Exception | None] = asyncio.Queue()
        places = asyncio.Semaphore(self._concurrent_replies)
        ended: list[CallEnded] = []

        async def one(number: int) -> None:
            async with places:
                if ended:
                    return
                try:
                    async for outcome in self._reply(
                        number, model_digest, asked[number], reference
                    ):
                        outcomes.put_nowait(outcome)
                except CallEnded as error:
                    # Those that a worker is at go on to their end; the others are not asked.
                    ended.append(error)

        async def everything() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    for number in asked:
                        group.create_task(one(number))
                outcomes.put_nowait(ended[0] if ended else None)
            except ExceptionGroup as errors:
                outcomes.put_nowait(errors.exceptions[0])

        working = asyncio.create_task(everything())
        try:
            while (outcome := await outcomes.get()) is not None:
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _reply(
        self, number: int, model_digest: str, asked: Asked, reference: str
    ) -> AsyncIterator[Outcome]:
        request = _reply_request(model_digest, asked, f"{reference}/{number}")
        started: datetime | None = None
        pieces: list[str] = []
        wait = Wait()
        answers = self._purse.ask(request, partial(self._stub.Infer, timeout=REPLY_SECONDS))
        try:
            async with aclosing(answers) as messages:
                async for message in messages:
                    waiting = wait.heard(_waited_for(message), self._clock.monotonic())
                    if waiting is not None:
                        yield waiting
                    if message.HasField("progress"):
                        continue
                    if started is None:
                        started = self._clock.now()
                        yield Started((number,))
                    if message.HasField("chunk"):
                        pieces.append(message.chunk.text)
                    elif message.HasField("complete"):
                        reply, complete = "".join(pieces), message.complete
                        yield self._replied(number, request, asked, reply, complete, started)
                        return
        except grpc.aio.AioRpcError as error:
            problem = _problem(error)
            # What keeps every question from being asked ends the chunk; the rest is this one's.
            if started is None and (problem.keeps_all_waiting or problem.models_fault):
                raise CallEnded(problem) from error
            yield Unanswered(number, problem)
        else:
            yield Unanswered(number, Problem("the reply broke off without an end", ENGINE_FAILED))

    def _replied(
        self,
        number: int,
        request: inference_pb2.InferRequest,
        asked: Asked,
        reply: str,
        complete: inference_pb2.InferComplete,
        started: datetime,
    ) -> Answered | Unanswered:
        origin = complete.provenance
        if origin.model_digest != request.model.digest:
            return Unanswered(number, _another_model(origin))
        if complete.finish_reason not in _WHOLE:
            return Unanswered(number, Problem("the worker gave the reply up", ENGINE_FAILED))
        turns = (request.system_prompt, request.chat.messages[0].content)
        return Answered(
            id=number,
            prediction=read_reply(asked, reply),
            answer=Answer(
                prompt="\n\n".join(filter(None, turns)),
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


def _problem(error: grpc.aio.AioRpcError) -> Problem:
    """Why a call ended with an error."""
    call = CallError.of(error)
    return Problem(
        call.message,
        call.reason or _REASONS_OF_CODES.get(call.code, ""),
        retryable=call.code is not grpc.StatusCode.INVALID_ARGUMENT,
        retry_after=call.retry_after,
    )


def _waited_for(
    message: inference_pb2.ScoreChoicesResponse | inference_pb2.InferResponse,
) -> Problem | None:
    """What the questions of an open call wait for."""
    progress = message.progress
    return Problem(progress.stage, progress.reason_code) if progress.reason_code else None


def _another_model(origin: inference_pb2.Provenance) -> Problem:
    """Of each question only a result by the model with the run's digest counts."""
    found = origin.model_digest or "without a digest"
    return Problem(f"the answer came from the model {found}", ENGINE_FAILED)


def _number(name: str, names: dict[str, int]) -> int:
    """The question that the herd speaks of.

    Raises:
        CallEnded: It was not asked, so that nothing more of the call can be trusted.
    """
    if name not in names:
        raise CallEnded(
            Problem(f'the herd answered for "{name}", which it was not asked', ENGINE_FAILED)
        )
    return names[name]


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
            id=str(number), prompt=texts.prompt, choices=texts.texts, prompts=texts.prompts
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


def _reply_request(model_digest: str, asked: Asked, reference: str) -> inference_pb2.InferRequest:
    conversation = asked.conversation
    request = inference_pb2.InferRequest(
        model=inference_pb2.ModelReference(digest=model_digest),
        system_prompt=conversation.system,
        sampling=inference_pb2.Sampling(
            max_tokens=asked.parts.evaluator.max_tokens, temperature=0, grammar=asked.grammar
        ),
        reference=reference,
    )
    request.chat.messages.add(role="user", content=conversation.user)
    return request


def _moment(message: Timestamp, otherwise: datetime) -> datetime:
    return from_timestamp(message) if message.seconds else otherwise

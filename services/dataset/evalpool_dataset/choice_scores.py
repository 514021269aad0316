"""The herd, asked how likely it holds choices: `loglikelihood`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import datetime
from functools import partial

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2_grpc
from evalpool_dataset.answers import another_model, problem_of, provenance_document, waited_for
from evalpool_dataset.inquiry import Asked, score
from evalpool_dataset.outcome import Answer, Answered, Outcome, Started, Unanswered
from evalpool_dataset.problem import ENGINE_FAILED, CallEnded, Problem
from evalpool_dataset.purse import Purse
from evalpool_dataset.scoring import UnusableScores
from evalpool_dataset.wait import Wait
from evalpool_runtime.clock import Clock
from evalpool_runtime.protobuf import from_timestamp

CALL_SECONDS = 6 * 3600.0

REQUEST_BYTES = 4 * 1024 * 1024


class ChoiceScores:
    """Has choices scored, many questions in one call.

    Args:
        stub: The router.
        purse: Asks it, and pays where that costs something.
        clock: What time it is.
    """

    def __init__(
        self, stub: router_pb2_grpc.RouterServiceAsyncStub, purse: Purse, clock: Clock
    ) -> None:
        self._stub = stub
        self._purse = purse
        self._clock = clock

    async def ask(
        self, model_digest: str, asked: dict[int, Asked], reference: str
    ) -> AsyncIterator[Outcome]:
        """Yield what becomes of each question, by the evaluation's number.

        Raises:
            CallEnded: The herd ended the call before every question had its outcome.
        """
        names = {str(number): number for number in asked}
        for request in _requests(model_digest, asked, reference):
            wait = Wait()
            answers = self._purse.ask(
                request, partial(self._stub.ScoreChoices, timeout=CALL_SECONDS)
            )
            try:
                async with aclosing(answers) as messages:
                    async for message in messages:
                        waiting = wait.heard(waited_for(message), self._clock.monotonic())
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
                raise CallEnded(problem_of(error)) from error

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
            return Unanswered(number, another_model(result.provenance))
        try:
            scored = score(asked, [choice.sum_logprob for choice in result.scores])
        except UnusableScores as error:
            # The machinery's failure, never a wrong answer.
            return Unanswered(number, Problem(str(error), ENGINE_FAILED))
        now = self._clock.now()
        return Answered(
            id=number,
            prediction=scored.prediction,
            points=scored.points,
            right=scored.right,
            answer=Answer(
                prompt=asked.parts.prompt.continuations(asked.question).shown,
                sum_logprobs=scored.sums,
                predictions=scored.predictions,
                reply=None,
                extracted=None,
                judging=None,
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


def _moment(message: Timestamp, otherwise: datetime) -> datetime:
    return from_timestamp(message) if message.seconds else otherwise

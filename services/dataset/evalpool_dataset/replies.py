"""The herd, asked to write: `letter`, `exact_match` and `judge`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import grpc

from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2_grpc
from evalpool_dataset.answers import another_model, problem_of, provenance_document, waited_for
from evalpool_dataset.grading import Grade, Grading
from evalpool_dataset.inquiry import Asked, compare, read_reply
from evalpool_dataset.library import Library
from evalpool_dataset.outcome import Answer, Answered, Outcome, Started, Unanswered, Waiting
from evalpool_dataset.parts import Conversation, Evaluator, PromptForm
from evalpool_dataset.problem import ENGINE_FAILED, CallEnded, Problem
from evalpool_dataset.purse import Purse
from evalpool_dataset.wait import Wait
from evalpool_runtime.clock import Clock

REPLY_SECONDS = 1800.0

_WHOLE = frozenset({inference_pb2.FINISH_REASON_STOP, inference_pb2.FINISH_REASON_LENGTH})
"""How a reply ends that the model itself has ended, or was to end there."""


@dataclass(frozen=True, slots=True)
class _Reply:
    """A reply that is written to its end."""

    text: str
    prompt: str
    reference: str
    origin: inference_pb2.Provenance
    start_time: datetime
    end_time: datetime


class Replies:
    """Has replies written, one call a question, and marks them.

    Args:
        stub: The router.
        purse: Asks it, and pays where that costs something.
        clock: What time it is.
        grading: Grades replies.
        library: Finds what questions are answered with, on retrieval datasets.
        concurrent: Replies that one chunk waits for at a time.
    """

    def __init__(
        self,
        stub: router_pb2_grpc.RouterServiceAsyncStub,
        purse: Purse,
        clock: Clock,
        grading: Grading,
        library: Library,
        concurrent: int,
    ) -> None:
        self._stub = stub
        self._purse = purse
        self._clock = clock
        self._grading = grading
        self._library = library
        self._concurrent = concurrent

    async def ask(
        self, subject: str, asked: dict[int, Asked], reference: str
    ) -> AsyncIterator[Outcome]:
        """Yield what becomes of each question, by the evaluation's number.

        Raises:
            CallEnded: The herd ended the call before every question had its outcome.
        """
        outcomes: asyncio.Queue[Outcome | Exception | None] = asyncio.Queue()
        places = asyncio.Semaphore(self._concurrent)
        ended: list[CallEnded] = []

        async def one(number: int) -> None:
            async with places:
                if ended:
                    return
                try:
                    async for outcome in self._answer(number, subject, asked[number], reference):
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

    async def _answer(
        self, number: int, subject: str, asked: Asked, reference: str
    ) -> AsyncIterator[Outcome]:
        """Have one question answered, and the answer marked."""
        reference = f"{reference}/{number}"
        model, based = subject, asked
        retrieval = asked.parts.evaluator.retrieval
        if retrieval is not None:
            found = await self._library.search(subject, asked.question.question, retrieval)
            model, based = retrieval.model, asked.based_on("\n\n".join(found))
        async for outcome in self._reply(number, model, based, reference):
            if isinstance(outcome, _Reply):
                async for marked in self._marked(number, asked, outcome):
                    yield marked
            else:
                yield outcome

    async def _reply(
        self, number: int, model: str, asked: Asked, reference: str
    ) -> AsyncIterator[Started | Waiting | Unanswered | _Reply]:
        request = _request(model, asked, reference)
        started: datetime | None = None
        pieces: list[str] = []
        wait = Wait()
        answers = self._purse.ask(request, partial(self._stub.Infer, timeout=REPLY_SECONDS))
        try:
            async with aclosing(answers) as messages:
                async for message in messages:
                    waiting = wait.heard(waited_for(message), self._clock.monotonic())
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
                        yield self._ended(
                            number, request, "".join(pieces), message.complete, started
                        )
                        return
        except grpc.aio.AioRpcError as error:
            problem = problem_of(error)
            if asked.parts.evaluator.retrieval is not None:
                problem = _of_what_answers(problem)
            # What keeps every question from being asked ends the chunk; the rest is this one's.
            if started is None and (problem.keeps_all_waiting or problem.subjects_fault):
                raise CallEnded(problem) from error
            yield Unanswered(number, problem)
        else:
            yield Unanswered(number, Problem("the reply broke off without an end", ENGINE_FAILED))

    def _ended(
        self,
        number: int,
        request: inference_pb2.InferRequest,
        text: str,
        complete: inference_pb2.InferComplete,
        started: datetime,
    ) -> _Reply | Unanswered:
        origin = complete.provenance
        if origin.model_digest != request.model.digest:
            return Unanswered(number, another_model(origin))
        if complete.finish_reason not in _WHOLE:
            return Unanswered(number, Problem("the worker gave the reply up", ENGINE_FAILED))
        return _Reply(text, _shown(request), request.reference, origin, started, self._clock.now())

    async def _marked(
        self, number: int, asked: Asked, reply: _Reply
    ) -> AsyncIterator[Waiting | Answered]:
        """Yield what a grade waits for, where it has to, and the answer with its points."""
        evaluator = asked.parts.evaluator
        match evaluator.evaluator:
            case Evaluator.EXACT_MATCH:
                compared = compare(asked, reply.text)
                yield _answered(
                    number,
                    reply,
                    points=compared.points,
                    right=compared.right,
                    extracted=compared.extracted,
                )
            case Evaluator.JUDGE:
                if evaluator.judge is None:
                    raise AssertionError("a judged dataset without a judge")
                async for event in self._grading.grade(
                    evaluator.judge, asked.question, reply.text, reply.reference
                ):
                    if isinstance(event, Grade):
                        yield _answered(number, reply, points=event.points, judging=event.judging)
                    else:
                        yield event
            case _:
                place = read_reply(asked, reply.text)
                points = int(place == asked.question.answer)
                yield _answered(number, reply, points=points, prediction=place)


def _answered(
    number: int,
    reply: _Reply,
    *,
    points: int,
    prediction: int = 0,
    right: Mapping[str, bool] | None = None,
    extracted: dict[str, str] | None = None,
    judging: dict[str, Any] | None = None,
) -> Answered:
    provenance = provenance_document(reply.origin)
    if judging:
        provenance["judge"] = {name: each for name, each in judging.items() if name != "worker"}
    return Answered(
        id=number,
        prediction=prediction,
        points=points,
        right=right or {},
        answer=Answer(
            prompt=reply.prompt,
            sum_logprobs=None,
            predictions=None,
            reply=reply.text,
            extracted=extracted,
            judging=judging,
            start_time=reply.start_time,
            end_time=reply.end_time,
            reference=reply.reference,
            worker=reply.origin.worker,
            engine_build=reply.origin.engine_build,
        ),
        provenance=provenance,
    )


def _of_what_answers(problem: Problem) -> Problem:
    """A model that cannot be run is never the fault of the set that it was to answer from."""
    if not problem.subjects_fault:
        return problem
    reason = f"the model that answers gave no reply: {problem.reason}"
    return replace(problem, reason=reason, code=ENGINE_FAILED)


def _request(model: str, asked: Asked, reference: str) -> inference_pb2.InferRequest:
    conversation, rules = asked.conversation, asked.parts.evaluator.rules
    request = inference_pb2.InferRequest(
        model=inference_pb2.ModelReference(digest=model),
        sampling=inference_pb2.Sampling(
            max_tokens=rules.max_tokens,
            temperature=float(rules.temperature),
            seed=rules.seed,
            stop=rules.stop,
            grammar=asked.grammar,
        ),
        reference=reference,
    )
    if rules.form is PromptForm.PLAIN:
        request.prompt = _plain(conversation)
    else:
        request.system_prompt = conversation.system
        request.chat.messages.add(role="user", content=conversation.user)
    return request


def _plain(conversation: Conversation) -> str:
    return "\n\n".join(filter(None, (conversation.system, conversation.user)))


def _shown(request: inference_pb2.InferRequest) -> str:
    """What the model was given, for people."""
    if request.WhichOneof("input") == "prompt":
        return request.prompt
    return _plain(Conversation(request.system_prompt, request.chat.messages[0].content))

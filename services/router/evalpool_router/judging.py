"""Grades from 0 to 10: what a judge is asked, and what its reply comes to."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2
from evalpool_router import prompts, rewording
from evalpool_router.caller import Caller
from evalpool_router.estimates import most_infer_tokens
from evalpool_router.inference import Call, Inference
from evalpool_router.job import add_usage
from evalpool_router.requests import parse_evaluate
from evalpool_router.scheduler import Kind
from evalpool_router.settings import RouterSettings
from evalpool_router.toll import Meter, Toll
from evalpool_runtime.errors import InvalidRequest, Unavailable, reasons

OWN_ANSWER_BYTES = 64 * prompts.CHAT_TOKENS
"""Bytes that the herd's own answer may have, as the judge reads it."""


class Judging:
    """Grades responses.

    Args:
        inference: Asks the herd.
        toll: Takes what a grade costs.
        settings: Default models.
    """

    def __init__(self, inference: Inference, toll: Toll, settings: RouterSettings) -> None:
        self._inference = inference
        self._toll = toll
        self._settings = settings

    async def evaluate(
        self, request: router_pb2.EvaluateRequest, caller: Caller
    ) -> router_pb2.EvaluateResponse:
        """Grade a response.

        Raises:
            DomainError: It could not be graded.
        """
        call = self._inference.begin("Evaluate", parse_evaluate(request), caller)
        offer = self._inference.offer(call, _most_tokens(request))
        async with self._toll.paying(offer) as meter:
            used, usage = Meter(), inference_pb2.Usage()
            response = request.response
            if not request.HasField("response"):
                response = await self._own_answer(request, call, used, usage)
            graded = await self._grade(request, response, call, used, usage)
            # What comes to no grade costs nothing.
            meter.count(used.tokens)
            return graded

    async def _own_answer(
        self,
        request: router_pb2.EvaluateRequest,
        call: Call,
        meter: Meter,
        usage: inference_pb2.Usage,
    ) -> str:
        named, asked = self._settings.chat_model, _answer_asked(request)
        try:
            answer, complete = await _whole(
                self._inference.run(call, asked, Kind.CHAT, named, meter)
            )
        except InvalidRequest as error:
            raise rewording.of_the_question(error) from error
        add_usage(usage, complete.usage)
        return answer

    async def _grade(
        self,
        request: router_pb2.EvaluateRequest,
        response: str,
        call: Call,
        meter: Meter,
        usage: inference_pb2.Usage,
    ) -> router_pb2.EvaluateResponse:
        named = call.terms.model or self._settings.judge_model
        asked = _judge_asked(request, response)
        try:
            reply, complete = await _whole(
                self._inference.run(call, asked, Kind.JUDGE, named, meter)
            )
        except InvalidRequest as error:
            raise rewording.of_the_judging(error) from error
        score = prompts.parse_grade(reply)
        # A reply that was cut at the limit may have gone on.
        if score is None or complete.finish_reason != inference_pb2.FINISH_REASON_STOP:
            raise rewording.no_grade()
        add_usage(usage, complete.usage)
        return router_pb2.EvaluateResponse(
            score=score,
            reference=call.terms.reference,
            provenance=complete.provenance,
            usage=usage,
            prompt_digest=prompts.JUDGE_PROMPT_DIGEST,
            seed=request.seed,
            response=response,
        )


def _answer_asked(request: router_pb2.EvaluateRequest) -> inference_pb2.InferRequest:
    return inference_pb2.InferRequest(
        chat=prompts.chat_question(request.question, request.context),
        sampling=inference_pb2.Sampling(max_tokens=prompts.CHAT_TOKENS),
    )


def _judge_asked(request: router_pb2.EvaluateRequest, response: str) -> inference_pb2.InferRequest:
    return inference_pb2.InferRequest(
        chat=prompts.judge_question(
            request.question, request.expected_response, request.context, response
        ),
        sampling=inference_pb2.Sampling(
            max_tokens=prompts.JUDGE_TOKENS,
            temperature=0.0,
            seed=request.seed,
            grammar=prompts.JUDGE_GRAMMAR,
        ),
    )


def _most_tokens(request: router_pb2.EvaluateRequest) -> int:
    """Tokens that a grade may take, with the herd's own answer where one is asked for."""
    most = most_infer_tokens(_judge_asked(request, request.response))
    if not request.HasField("response"):
        most += most_infer_tokens(_answer_asked(request)) + OWN_ANSWER_BYTES
    return most


async def _whole(
    responses: AsyncGenerator[inference_pb2.InferResponse, None],
) -> tuple[str, inference_pb2.InferComplete]:
    """A text that is not streamed on, and its end.

    Raises:
        Unavailable: It was broken off.
    """
    text, complete = [], inference_pb2.InferComplete()
    async with aclosing(responses):
        async for response in responses:
            if response.HasField("complete"):
                complete = response.complete
            else:
                text.append(response.chunk.text)
    if complete.finish_reason == inference_pb2.FINISH_REASON_CANCELLED:
        raise Unavailable(
            reasons.ERROR_REASON_WORKER_LOST, "the worker broke the reply off; try again"
        )
    return "".join(text), complete

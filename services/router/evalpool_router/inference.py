"""Requests for inference: which model, which workers, until when."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from fractions import Fraction

from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2
from evalpool_router import prompts
from evalpool_router.caller import Caller
from evalpool_router.herd import Herd
from evalpool_router.job import InferJob, ScoreJob
from evalpool_router.models import Model
from evalpool_router.repository import HERD_SOURCE, Repository
from evalpool_router.requests import (
    DEFAULT_MAX_TOKENS,
    Terms,
    infer_tokens,
    most_infer_tokens,
    most_question_tokens,
    parse_chat,
    parse_evaluate,
    parse_infer,
    parse_score_choices,
    question_tokens,
)
from evalpool_router.scheduler import Kind, Request
from evalpool_router.settings import RouterSettings
from evalpool_router.toll import Meter, Offer, Toll, paid_tokens
from evalpool_runtime.clock import Clock
from evalpool_runtime.errors import (
    FailedPrecondition,
    Internal,
    NotFound,
    PermissionDenied,
    reasons,
)


class Inference:
    """Turns callers' requests into work for the herd.

    Args:
        herd: Does the work.
        repository: Knows the models.
        toll: Takes what a request costs.
        settings: Default models and limits of time.
        clock: What time it is.
    """

    def __init__(
        self,
        herd: Herd,
        repository: Repository,
        toll: Toll,
        settings: RouterSettings,
        clock: Clock,
    ) -> None:
        self._herd = herd
        self._repository = repository
        self._toll = toll
        self._settings = settings
        self._clock = clock

    @property
    def last_multiplier(self) -> Fraction:
        """The multiplier of the request that was dispatched last."""
        return self._herd.last_multiplier

    def infer(
        self, request: inference_pb2.InferRequest, caller: Caller
    ) -> AsyncGenerator[inference_pb2.InferResponse, None]:
        """Go on with a prompt or a conversation.

        Raises:
            DomainError: It could not be answered.
        """
        terms = parse_infer(request)
        kind = Kind.EVALUATE if caller.evaluates else Kind.CHAT
        self._bound(request)
        deadline = self._deadline(caller)
        return self._toll.answers(
            self._offer(terms, caller, most_infer_tokens(request), deadline),
            lambda meter: self._run(
                "Infer", request, terms, kind, terms.model or None, caller, deadline, meter
            ),
        )

    def score(
        self, request: inference_pb2.ScoreChoicesRequest, caller: Caller
    ) -> AsyncGenerator[inference_pb2.ScoreChoicesResponse, None]:
        """Score the choices of questions.

        Raises:
            DomainError: They could not be scored.
        """
        terms = parse_score_choices(request)
        now = self._clock.monotonic()
        tokens = sum(most_question_tokens(question) for question in request.questions)
        deadline = now + _shorter(self._settings.score_seconds, caller.remaining)
        offer = self._offer(terms, caller, tokens, deadline)
        return self._toll.answers(
            offer, lambda meter: self._score(request, terms, caller, deadline, meter)
        )

    async def _score(
        self,
        request: inference_pb2.ScoreChoicesRequest,
        terms: Terms,
        caller: Caller,
        deadline: float,
        meter: Meter,
    ) -> AsyncGenerator[inference_pb2.ScoreChoicesResponse, None]:
        model = await self._model(terms.model, terms, caller)
        multiplier = self._toll.weight(terms.multiplier)
        job = ScoreJob(
            id=self._herd.next_number(),
            method="ScoreChoices",
            kind=Kind.EVALUATE,
            reference=terms.reference,
            model=reference_of(model),
            deadline=deadline,
            begun=self._clock.monotonic(),
            multiplier=multiplier,
            questions=tuple(request.questions),
        )
        self._herd.submit(
            job,
            Request(
                id=job.id,
                caller=caller.address,
                kind=Kind.EVALUATE,
                model=model.digest,
                tokens=tuple(question_tokens(question) for question in job.questions),
                deadline=job.deadline,
                multiplier=multiplier,
                scoring=True,
                size_bytes=request.ByteSize(),
                model_bytes=model.size_bytes,
            ),
        )
        async with aclosing(self._herd.score(job, self._settings.progress_seconds)) as responses:
            async for response in responses:
                for result in response.results.results:
                    if not result.HasField("failure"):
                        meter.count(paid_tokens(result.usage))
                yield response

    async def chat(
        self, request: router_pb2.ChatRequest, caller: Caller
    ) -> AsyncGenerator[router_pb2.ChatResponse, None]:
        """Answer a question.

        Raises:
            DomainError: It could not be answered.
        """
        terms = parse_chat(request)
        asked = inference_pb2.InferRequest(
            chat=prompts.chat_question(request.question, request.context),
            sampling=request.sampling,
        )
        if not asked.sampling.HasField("max_tokens"):
            asked.sampling.max_tokens = prompts.CHAT_TOKENS
        named = terms.model or self._settings.chat_model
        deadline = self._deadline(caller)
        offer = self._offer(terms, caller, most_infer_tokens(asked), deadline)
        async with aclosing(
            self._toll.answers(
                offer,
                lambda meter: self._run(
                    "Chat", asked, terms, Kind.CHAT, named, caller, deadline, meter
                ),
            )
        ) as responses:
            async for response in responses:
                if response.HasField("complete"):
                    yield router_pb2.ChatResponse(
                        reference=response.reference, complete=response.complete
                    )
                elif response.HasField("chunk"):
                    yield router_pb2.ChatResponse(
                        reference=response.reference, chunk=response.chunk
                    )

    async def evaluate(
        self, request: router_pb2.EvaluateRequest, caller: Caller
    ) -> router_pb2.EvaluateResponse:
        """Grade a response.

        Raises:
            DomainError: It could not be graded.
        """
        terms = parse_evaluate(request)
        deadline = self._deadline(caller)
        most = prompts.MOST_GRADE_TOKENS + len(request.SerializeToString())
        async with self._toll.paying(self._offer(terms, caller, most, deadline)) as meter:
            return await self._grade(request, terms, caller, deadline, meter)

    async def _grade(
        self,
        request: router_pb2.EvaluateRequest,
        terms: Terms,
        caller: Caller,
        deadline: float,
        meter: Meter,
    ) -> router_pb2.EvaluateResponse:
        used = Meter()
        response = request.response or await self._own_answer(
            request, terms, caller, deadline, used
        )
        asked = inference_pb2.InferRequest(
            chat=prompts.judge_question(
                request.question, request.expected_response, request.context, response
            ),
            sampling=inference_pb2.Sampling(
                max_tokens=prompts.JUDGE_TOKENS, temperature=0.0, grammar=prompts.JUDGE_GRAMMAR
            ),
        )
        named = terms.model or self._settings.judge_model
        reply, complete = await self._whole(
            self._run("Evaluate", asked, terms, Kind.JUDGE, named, caller, deadline, used)
        )
        score = prompts.parse_grade(reply)
        if score is None:
            raise Internal(
                reasons.ERROR_REASON_ENGINE_FAILED,
                "the judge's reply is no grade although its grammar allows nothing else; the "
                "worker's engine does not apply grammars",
            )
        meter.count(used.tokens)
        return router_pb2.EvaluateResponse(
            score=score,
            reference=terms.reference,
            provenance=complete.provenance,
            usage=complete.usage,
        )

    async def _own_answer(
        self,
        request: router_pb2.EvaluateRequest,
        terms: Terms,
        caller: Caller,
        deadline: float,
        meter: Meter,
    ) -> str:
        asked = inference_pb2.InferRequest(
            chat=prompts.chat_question(request.question, request.context),
            sampling=inference_pb2.Sampling(max_tokens=prompts.CHAT_TOKENS),
        )
        named = self._settings.chat_model
        answer, _ = await self._whole(
            self._run("Evaluate", asked, terms, Kind.CHAT, named, caller, deadline, meter)
        )
        return answer

    async def _whole(
        self, responses: AsyncIterator[inference_pb2.InferResponse]
    ) -> tuple[str, inference_pb2.InferComplete]:
        text, complete = [], inference_pb2.InferComplete()
        async for response in responses:
            if response.HasField("complete"):
                complete = response.complete
            else:
                text.append(response.chunk.text)
        return "".join(text), complete

    async def _run(
        self,
        method: str,
        asked: inference_pb2.InferRequest,
        terms: Terms,
        kind: Kind,
        named: str | None,
        caller: Caller,
        deadline: float,
        meter: Meter,
    ) -> AsyncGenerator[inference_pb2.InferResponse, None]:
        if named is None:
            named = await self._loaded_model(kind, caller) or self._settings.chat_model
        model = await self._model(named, terms, caller)
        multiplier = self._toll.weight(terms.multiplier)
        job = InferJob(
            id=self._herd.next_number(),
            method=method,
            kind=kind,
            reference=terms.reference,
            model=reference_of(model),
            deadline=deadline,
            begun=self._clock.monotonic(),
            multiplier=multiplier,
            request=asked,
        )
        self._herd.submit(
            job,
            Request(
                id=job.id,
                caller=caller.address,
                kind=kind,
                model=model.digest,
                tokens=(infer_tokens(asked),),
                deadline=deadline,
                multiplier=multiplier,
                size_bytes=asked.ByteSize(),
                model_bytes=model.size_bytes,
            ),
        )
        counted = 0
        async with aclosing(self._herd.infer(job, self._settings.progress_seconds)) as responses:
            async for response in responses:
                # A caller who breaks the answer off has had the text that was sent.
                tokens = response.chunk.tokens
                if response.HasField("complete"):
                    tokens = max(paid_tokens(response.complete.usage) - counted, 0)
                counted += tokens
                meter.count(tokens)
                yield response

    def _offer(self, terms: Terms, caller: Caller, tokens: int, deadline: float) -> Offer:
        return Offer(
            hold=terms.hold,
            payer=caller.address,
            multiplier=terms.multiplier,
            most_tokens=tokens,
            seconds=deadline - self._clock.monotonic(),
        )

    def _bound(self, asked: inference_pb2.InferRequest) -> None:
        """Where inference is paid a worker's own limit is not the caller's risk."""
        if self._toll.prices.paid and not asked.sampling.max_tokens:
            asked.sampling.max_tokens = DEFAULT_MAX_TOKENS

    async def _loaded_model(self, kind: Kind, caller: Caller) -> str:
        """The model that most workers have loaded, of those that the caller may run."""
        for digest in self._herd.scheduler.loaded_models(kind):
            with suppress(NotFound, PermissionDenied):
                model = await self._repository.find_runnable(
                    digest, field="model", caller=caller.address, trusted=caller.trusted
                )
                return model.digest
        return ""

    async def _model(self, named: str, terms: Terms, caller: Caller) -> Model:
        if not named:
            raise FailedPrecondition(
                reasons.ERROR_REASON_MODEL_NOT_FOUND,
                "model: the request names none, and the herd has no default; name one in "
                "model.digest",
            )
        return await self._repository.find_runnable(
            named,
            field=terms.field if named == terms.model else "model",
            caller=caller.address,
            trusted=caller.trusted,
        )

    def _deadline(self, caller: Caller) -> float:
        limit = _shorter(self._settings.infer_seconds, caller.remaining)
        return self._clock.monotonic() + limit


def reference_of(model: Model) -> inference_pb2.ModelReference:
    """A model as workers are told of it: with where it can be had."""
    source = f"{HERD_SOURCE}{model.digest}" if model.owner else model.source
    return inference_pb2.ModelReference(digest=model.digest, sources=[source], name=model.name)


def _shorter(limit: float, remaining: float | None) -> float:
    return limit if remaining is None else min(limit, max(remaining, 0.0))

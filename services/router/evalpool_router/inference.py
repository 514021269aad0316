"""Requests for inference: which model, which workers, until when."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from fractions import Fraction

from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2
from evalpool_router import prompts, rewording
from evalpool_router.caller import Caller
from evalpool_router.estimates import (
    DEFAULT_MAX_TOKENS,
    infer_tokens,
    most_infer_tokens,
    most_question_tokens,
    question_tokens,
)
from evalpool_router.herd import Herd
from evalpool_router.job import InferJob, ScoreJob
from evalpool_router.models import Model
from evalpool_router.packing import pack_chat
from evalpool_router.repository import HERD_SOURCE, Repository
from evalpool_router.requests import Terms, parse_chat, parse_infer, parse_score_choices
from evalpool_router.scheduler import Kind, Request
from evalpool_router.settings import RouterSettings
from evalpool_router.toll import Meter, Offer, Toll, paid_tokens
from evalpool_runtime.clock import Clock
from evalpool_runtime.errors import (
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    reasons,
)


@dataclass(frozen=True, slots=True)
class Call:
    """A caller's request for text.

    Attributes:
        method: The RPC, for metrics.
        terms: What it says beside its content.
        caller: Who asks.
        deadline: When it is given up, in the clock's monotonic seconds.
    """

    method: str
    terms: Terms
    caller: Caller
    deadline: float


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
        call = self.begin("Infer", parse_infer(request), caller)
        kind = Kind.EVALUATE if caller.evaluates else Kind.CHAT
        self._bound(request)
        return self._toll.answers(
            self.offer(call, most_infer_tokens(request)),
            lambda meter: self.run(call, request, kind, call.terms.model or None, meter),
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
        offer = self.offer(Call("ScoreChoices", terms, caller, deadline), tokens)
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
        call = self.begin("Chat", parse_chat(request), caller)
        asked = inference_pb2.InferRequest(
            chat=prompts.chat_question(request.question, request.context),
            sampling=request.sampling,
        )
        if not asked.sampling.HasField("max_tokens"):
            asked.sampling.max_tokens = prompts.CHAT_TOKENS
        named = call.terms.model or self._settings.chat_model
        answers = self._toll.answers(
            self.offer(call, most_infer_tokens(asked)),
            lambda meter: self.run(call, asked, Kind.CHAT, named, meter),
        )
        try:
            async with aclosing(answers) as responses:
                async for response in responses:
                    yield pack_chat(response)
        except InvalidRequest as error:
            raise rewording.of_the_question(error) from error

    def begin(self, method: str, terms: Terms, caller: Caller) -> Call:
        """A request for text, from now on."""
        limit = _shorter(self._settings.infer_seconds, caller.remaining)
        return Call(method, terms, caller, self._clock.monotonic() + limit)

    def offer(self, call: Call, tokens: int) -> Offer:
        """What a request offers to pay.

        Args:
            call: The request.
            tokens: Tokens that it may take.
        """
        return Offer(
            hold=call.terms.hold,
            payer=call.caller.address,
            multiplier=call.terms.multiplier,
            most_tokens=tokens,
            seconds=call.deadline - self._clock.monotonic(),
        )

    async def run(
        self,
        call: Call,
        asked: inference_pb2.InferRequest,
        kind: Kind,
        named: str | None,
        meter: Meter,
    ) -> AsyncGenerator[inference_pb2.InferResponse, None]:
        """Have the herd go on with a prompt.

        Args:
            call: The request that it is for.
            asked: The prompt.
            kind: The workers that may take it.
            named: The model, by digest or name; None for the one that most of them have loaded.
            meter: Counts the tokens that the caller gets.

        Raises:
            DomainError: It could not be answered.
        """
        if named is None:
            named = await self._loaded_model(kind, call.caller) or self._settings.chat_model
        model = await self._model(named, call.terms, call.caller)
        multiplier = self._toll.weight(call.terms.multiplier)
        job = InferJob(
            id=self._herd.next_number(),
            method=call.method,
            kind=kind,
            reference=call.terms.reference,
            model=reference_of(model),
            deadline=call.deadline,
            begun=self._clock.monotonic(),
            multiplier=multiplier,
            request=asked,
        )
        self._herd.submit(
            job,
            Request(
                id=job.id,
                caller=call.caller.address,
                kind=kind,
                model=model.digest,
                tokens=(infer_tokens(asked),),
                deadline=call.deadline,
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

    def _bound(self, asked: inference_pb2.InferRequest) -> None:
        """Where inference is paid a worker's own limit is not the caller's risk."""
        if self._toll.prices.paid and not asked.sampling.max_tokens:
            asked.sampling.max_tokens = DEFAULT_MAX_TOKENS

    async def _loaded_model(self, kind: Kind, caller: Caller) -> str:
        """The model that most workers have loaded, of those that the caller may run."""
        for digest in self._herd.scheduler.loaded_models(kind):
            with suppress(NotFound, PermissionDenied):
                model = await self._repository.find_runnable(
                    digest,
                    field="model",
                    caller=caller.address,
                    trusted=self._may_run(digest, caller),
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
            trusted=self._may_run(named, caller),
        )

    def _may_run(self, named: str, caller: Caller) -> bool:
        """Whether the caller may run a model whosever it is."""
        # What the operator has made a default is for everybody.
        defaults = (self._settings.chat_model, self._settings.judge_model)
        return caller.trusted or named in defaults


def reference_of(model: Model) -> inference_pb2.ModelReference:
    """A model as workers are told of it: with where it can be had."""
    source = f"{HERD_SOURCE}{model.digest}" if model.owner else model.source
    return inference_pb2.ModelReference(digest=model.digest, sources=[source], name=model.name)


def _shorter(limit: float, remaining: float | None) -> float:
    return limit if remaining is None else min(limit, max(remaining, 0.0))

"""A router that answers at once, deterministically, and misbehaves on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from typing import Any, Self

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc import aio
from grpc_status import rpc_status

from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool_runtime.authentication import Authenticator
from evalpool_runtime.clock import SystemClock
from evalpool_runtime.protobuf import duration

WORKER = "w" * 43


def sum_of(prompt: str, choice: str) -> float:
    """The double's sum of log-probabilities: the shortest choice is the likeliest."""
    return -float(len(choice))


class RouterDouble(router_pb2_grpc.RouterServiceServicer):
    """The herd's front, as the dataset service calls it.

    Attributes:
        identity: Its key.
        models: The models that it knows, by digest.
        sums: The sum of log-probabilities of a choice after a prompt.
        reply: The reply to a conversation's last turn, or to a prompt.
        open: Where it is cleared, results stop after `free` of a call until it is set.
        free: Results that come in spite of that.
        reached: Set when a call has come as far as it goes before `open` is set.
        break_after: How many results a call gives before its stream breaks, a number a call; calls
            after the last one do not break.
        progress: What a call tells of its standing before it starts; of Infer what has a reason.
        refusals: What the next calls are refused with before anything starts: code and reason.
        always: What every further call is refused with.
        price: Units that a call has to come with a hold for; None where it is free.
        holds: The holds that calls came with.
        refuse_second: The second reply asked for finds the queue full, and lets the first go on.
        answers_as: The digest of the model that answers; empty for the one that was asked for.
        finish: How replies end; None for a stream that ends without saying so.
        repeats: How often each result is sent.
        failure: Gives the failure that is sent in place of a question's result, or None.
        change: Changes results before they are sent.
        grade: The grade of a request.
        judge: The digest of the model that grades; empty for the one that was asked for.
        judge_refusals: What the next grades are refused with: code and reason.
        own_models: The digests of the models that it chats and judges with.
        scored: Requests of ScoreChoices that came.
        inferred: Requests of Infer that came.
        graded: Requests of Evaluate that came.
        callers: Addresses that called.
        cancelled: Set when a caller has cancelled a call that waited for `open`.
    """

    def __init__(self, *digests: str) -> None:
        self.identity = Identity.generate()
        self.models = {
            digest: router_pb2.Model(digest=digest, name=f"Model {digest[:4]}", source="pypi:m==1")
            for digest in digests
        }
        self.sums: Callable[[str, str], float] = sum_of
        self.reply: Callable[[str], str] = lambda turn: "A"
        self.open = asyncio.Event()
        self.open.set()
        self.free = 0
        self.reached = asyncio.Event()
        self.break_after: list[int] = []
        self.progress: list[inference_pb2.ScoreProgress] = []
        self.refusals: list[tuple[grpc.StatusCode, str]] = []
        self.always: tuple[grpc.StatusCode, str] | None = None
        self.price: int | None = None
        self.holds: list[str] = []
        self.refuse_second = False
        self.answers_as = ""
        self.finish: inference_pb2.FinishReason.ValueType | None = inference_pb2.FINISH_REASON_STOP
        self.repeats = 1
        self.failure: Callable[
            [inference_pb2.ChoiceQuestion], inference_pb2.QuestionFailure | None
        ] = lambda question: None
        self.change: Callable[[inference_pb2.QuestionResult], None] = lambda result: None
        self.grade: Callable[[router_pb2.EvaluateRequest], int] = lambda request: 10
        self.judge = ""
        self.judge_refusals: list[tuple[grpc.StatusCode, str]] = []
        self.own_models = ("", "")
        self.scored: list[inference_pb2.ScoreChoicesRequest] = []
        self.inferred: list[inference_pb2.InferRequest] = []
        self.graded: list[router_pb2.EvaluateRequest] = []
        self.callers: set[str] = set()
        self.cancelled = asyncio.Event()
        self.endpoint = ""
        self._server = aio.server()
        self._authenticator = Authenticator(self.identity.address, SystemClock())

    @classmethod
    def knowing(cls, *digests: str) -> Self:
        """A double that knows some models; what it does not implement is not called."""
        return cls(*digests)

    @property
    def prompts(self) -> list[str]:
        """The prompt of every question that it was asked, again for each time."""
        return [question.prompt for request in self.scored for question in request.questions]

    async def __aenter__(self) -> Self:
        router_pb2_grpc.add_RouterServiceServicer_to_server(self, self._server)
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Answer no more."""
        self.open.set()
        await self._server.stop(None)

    async def GetModel(
        self, request: router_pb2.GetModelRequest, context: Any
    ) -> router_pb2.GetModelResponse:
        self._note_caller(context)
        if request.model not in self.models:
            await fail(context, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
        return router_pb2.GetModelResponse(model=self.models[request.model])

    async def GetInfo(
        self, request: router_pb2.GetInfoRequest, context: Any
    ) -> router_pb2.GetInfoResponse:
        chat, judge = self.own_models
        return router_pb2.GetInfoResponse(
            chat_model=inference_pb2.ModelReference(digest=chat),
            judge_model=inference_pb2.ModelReference(digest=judge),
        )

    async def Evaluate(
        self, request: router_pb2.EvaluateRequest, context: Any
    ) -> router_pb2.EvaluateResponse:
        self._note_caller(context)
        self.graded.append(request)
        await self._take_hold(context, request.hold)
        if self.judge_refusals:
            await fail(context, *self.judge_refusals.pop(0), self._terms())
        return router_pb2.EvaluateResponse(
            score=self.grade(request),
            reference=request.reference,
            provenance=_provenance(self.judge or request.model.digest),
            prompt_digest="p" * 64,
            seed=request.seed,
            response=request.response,
        )

    async def ScoreChoices(
        self, request: inference_pb2.ScoreChoicesRequest, context: Any
    ) -> AsyncIterator[inference_pb2.ScoreChoicesResponse]:
        self._note_caller(context)
        self.scored.append(request)
        await self._take_hold(context, request.hold)
        await self._refuse(context)
        breaks = self.break_after.pop(0) if self.break_after else None
        for progress in self.progress:
            yield inference_pb2.ScoreChoicesResponse(reference=request.reference, progress=progress)
            await self._wait(0)
        yield inference_pb2.ScoreChoicesResponse(
            reference=request.reference,
            started=inference_pb2.ScoreStarted(
                ids=[q.id for q in request.questions[:breaks]], worker=WORKER
            ),
        )
        for place, question in enumerate(request.questions):
            if place == breaks:
                await fail(context, grpc.StatusCode.UNAVAILABLE, "WORKER_LOST")
            await self._wait(place)
            result = self._result(request.model.digest, question)
            for _ in range(self.repeats):
                yield inference_pb2.ScoreChoicesResponse(
                    reference=request.reference,
                    results=inference_pb2.QuestionResults(results=[result]),
                )
        yield inference_pb2.ScoreChoicesResponse(
            reference=request.reference,
            complete=inference_pb2.ScoreComplete(scored=len(request.questions)),
        )

    async def Infer(
        self, request: inference_pb2.InferRequest, context: Any
    ) -> AsyncIterator[inference_pb2.InferResponse]:
        self._note_caller(context)
        self.inferred.append(request)
        await self._take_hold(context, request.hold)
        await self._refuse(context)
        if self.refuse_second and len(self.inferred) == 2:
            await self.reached.wait()
            self.open.set()
            await fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        for progress in self.progress:
            if progress.reason_code:
                yield inference_pb2.InferResponse(
                    reference=request.reference,
                    progress=inference_pb2.InferProgress(
                        stage=progress.stage, reason_code=progress.reason_code
                    ),
                )
        await self._wait(len(self.inferred) - 1)
        is_plain = request.WhichOneof("input") == "prompt"
        turn = request.prompt if is_plain else request.chat.messages[-1].content
        for piece in self.reply(turn):
            yield inference_pb2.InferResponse(
                reference=request.reference, chunk=inference_pb2.InferChunk(text=piece, tokens=1)
            )
        if self.finish is None:
            return
        yield inference_pb2.InferResponse(
            reference=request.reference,
            complete=inference_pb2.InferComplete(
                finish_reason=self.finish,
                provenance=_provenance(self.answers_as or request.model.digest),
            ),
        )

    def _result(
        self, digest: str, question: inference_pb2.ChoiceQuestion
    ) -> inference_pb2.QuestionResult:
        result = inference_pb2.QuestionResult(
            id=question.id,
            provenance=_provenance(self.answers_as or digest),
            start_time=Timestamp(seconds=1_700_000_000),
            end_time=Timestamp(seconds=1_700_000_002),
        )
        failure = self.failure(question)
        if failure is not None:
            result.failure.CopyFrom(failure)
        else:
            prompts = question.prompts or [question.prompt] * len(question.choices)
            for prompt, choice in zip(prompts, question.choices, strict=True):
                result.scores.add(sum_logprob=self.sums(prompt, choice), tokens=1)
        self.change(result)
        return result

    def _note_caller(self, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        token = self._authenticator.verify(metadata["authorization"].removeprefix("Bearer "))
        self.callers.add(token.address)

    async def _refuse(self, context: Any) -> None:
        refusal = self.refusals.pop(0) if self.refusals else self.always
        if refusal is not None:
            await fail(context, *refusal, self._terms())

    async def _take_hold(self, context: Any, hold: str) -> None:
        if hold:
            self.holds.append(hold)
        elif self.price is not None:
            refusal = (grpc.StatusCode.FAILED_PRECONDITION, "HOLD_REFUSED")
            await fail(context, *refusal, self._terms())

    def _terms(self) -> dict[str, str]:
        """What it tells whoever has to pay."""
        return {} if self.price is None else {"price": str(self.price), "hold_seconds": "60"}

    async def _wait(self, place: int) -> None:
        if place >= self.free and not self.open.is_set():
            self.reached.set()
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise


def _provenance(digest: str) -> inference_pb2.Provenance:
    return inference_pb2.Provenance(
        model_digest=digest,
        engine="double",
        engine_build="double 1",
        worker=WORKER,
        generation=3,
        dispatch=9,
        quantisation="Q4_1",
        threads=2,
    )


async def fail(
    context: Any, code: grpc.StatusCode, reason: str, metadata: Mapping[str, str] | None = None
) -> None:
    """End a call as the services do, with one ErrorInfo and a delay for another try."""
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=f"{reason} as told")
    info = error_details_pb2.ErrorInfo(reason=reason, domain="evalpool", metadata=metadata)
    status.details.add().Pack(info)
    # As soon as a caller's rounding allows, so that a test need not wait.
    delay = duration(timedelta(milliseconds=10))
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    await context.abort_with_status(rpc_status.to_status(status))

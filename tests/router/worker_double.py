"""A worker that answers at once, deterministically, and misbehaves on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc import aio
from grpc_status import rpc_status

from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool.worker.v1 import worker_pb2_grpc
from evalpool_runtime.authentication import Authenticator
from evalpool_runtime.clock import SystemClock

ALL_KINDS = (
    router_pb2.WORKER_KIND_EVALUATE,
    router_pb2.WORKER_KIND_CHAT,
    router_pb2.WORKER_KIND_JUDGE,
)


def score(prompt: str, choice: str) -> float:
    """The double's log-probability of a choice."""
    return -float(len(prompt) + 10 * len(choice))


class WorkerDouble(worker_pb2_grpc.WorkerServiceServicer):
    """A worker of the herd.

    Attributes:
        identity: Its key.
        answers: What Infer answers, piece by piece.
        finish: How it says that it ended.
        longest_chat: Turns of a conversation at most; longer ones do not fit its context.
        open: Where it is cleared, answers stop after `free` results or pieces until it is set.
        free: Results or pieces that come in spite of that.
        refusals: How often it is busy before it takes work.
        error: Code and reason that every call ends with, without a reason where that is empty;
            None for none.
        metadata: Values of interest that go with it.
        violations: Fields that it says are wrong, with what is wrong.
        forge: Changes the provenance of results.
        garble: What it makes of a result before it sends it; a list, so that it may send none, or
            several.
        progress: What it tells of its standing before it takes questions up.
        leave_out: Ids of questions that it does not answer.
        computed_tokens: What it says that a text took.
        engine_build: The build that it registers with, and answers by.
        failures: What it says of questions that it fails, by id.
        scored: Questions that it was sent, package by package.
        prompted: Requests of Infer that it was sent.
        callers: Addresses that called.
        called: Set when the first call has come.
        reached: Set when a call has come as far as it goes before `open` is set.
        cancelled: Set when a call was cancelled.
    """

    def __init__(self, identity: Identity | None, endpoint: str) -> None:
        self.identity = identity or Identity.generate()
        self.answers = ["Par", "is."]
        self.finish = inference_pb2.FINISH_REASON_STOP
        self.longest_chat = 1000
        self.open = asyncio.Event()
        self.open.set()
        self.free = 0
        self.refusals = 0
        self.error: tuple[grpc.StatusCode, str] | None = None
        self.metadata = {"why": "test"}
        self.violations: dict[str, str] = {}
        self.forge: Callable[[inference_pb2.Provenance], None] = lambda provenance: None
        self.garble: Callable[[inference_pb2.QuestionResult], list[inference_pb2.QuestionResult]]
        self.garble = lambda result: [result]
        self.progress: inference_pb2.ScoreProgress | None = None
        self.leave_out: set[str] = set()
        self.failures: dict[str, inference_pb2.QuestionFailure] = {}
        self.scored: list[inference_pb2.ScoreChoicesRequest] = []
        self.prompted: list[inference_pb2.InferRequest] = []
        self.callers: set[str] = set()
        self.called = asyncio.Event()
        self.reached = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.generation = 0
        self.computed_tokens = 9
        self.engine_build = "double 1"
        self.endpoint = endpoint
        self._server = aio.server()
        self._authenticator = Authenticator(self.identity.address, SystemClock())

    @classmethod
    def new(cls, identity: Identity | None = None, endpoint: str = "127.0.0.1:0") -> Self:
        """A double; what it does not implement, a router does not call.

        Args:
            identity: Its key. Default: a new one.
            endpoint: Where it is to be reached. Default: any free port.
        """
        return cls(identity, endpoint)

    @property
    def address(self) -> str:
        return self.identity.address

    async def __aenter__(self) -> Self:
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(self, self._server)
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port(self.endpoint)}"
        await self._server.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.open.set()
        await self._server.stop(None)

    async def kill(self) -> None:
        """Cut everything at once."""
        await self._server.stop(None)

    async def register(
        self,
        stub: router_pb2_grpc.RouterServiceAsyncStub,
        *,
        slots: int = 4,
        memory: int = 10**9,
        kinds: tuple[router_pb2.WorkerKind.ValueType, ...] = ALL_KINDS,
        models: tuple[str, ...] = (),
        only_models: tuple[str, ...] = (),
        instance: str = "first",
        endpoint: str = "",
    ) -> router_pb2.RegisterWorkerResponse:
        response = await stub.RegisterWorker(
            router_pb2.RegisterWorkerRequest(
                endpoint=endpoint or self.endpoint,
                kinds=kinds,
                slots=slots,
                memory_bytes=memory,
                models=models,
                engine="double",
                engine_build=self.engine_build,
                instance=instance,
                only_models=only_models,
            )
        )
        self.generation = response.generation
        return response

    async def Infer(
        self, request: inference_pb2.InferRequest, context: Any
    ) -> AsyncIterator[inference_pb2.InferResponse]:
        dispatch = await self._begin(context)
        if len(request.chat.messages) > self.longest_chat:
            await self._fail(context, grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_TOO_LONG")
        self.prompted.append(request)
        try:
            for place, piece in enumerate(self.answers):
                await self._wait(place)
                yield inference_pb2.InferResponse(
                    reference=request.reference,
                    chunk=inference_pb2.InferChunk(
                        text=piece, tokens=1, logprobs=_told(piece, request.sampling)
                    ),
                )
            await self._wait(len(self.answers))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        yield inference_pb2.InferResponse(
            reference=request.reference,
            complete=inference_pb2.InferComplete(
                finish_reason=self.finish,
                usage=inference_pb2.Usage(
                    prompt_tokens=7, completion_tokens=2, computed_tokens=self.computed_tokens
                ),
                provenance=self._provenance(request.model.digest, dispatch),
            ),
        )

    async def ScoreChoices(
        self, request: inference_pb2.ScoreChoicesRequest, context: Any
    ) -> AsyncIterator[inference_pb2.ScoreChoicesResponse]:
        dispatch = await self._begin(context)
        self.scored.append(request)
        origin = self._provenance(request.model.digest, dispatch)
        if self.progress is not None:
            yield inference_pb2.ScoreChoicesResponse(progress=self.progress)
        yield inference_pb2.ScoreChoicesResponse(
            started=inference_pb2.ScoreStarted(ids=["what it likes"], worker="?")
        )
        answered = [q for q in request.questions if q.id not in self.leave_out]
        try:
            for place, question in enumerate(answered):
                await self._wait(place)
                result = inference_pb2.QuestionResult(
                    id=question.id,
                    provenance=origin,
                    usage=inference_pb2.Usage(prompt_tokens=5, computed_tokens=4),
                )
                if question.id in self.failures:
                    result.failure.CopyFrom(self.failures[question.id])
                else:
                    for choice in question.choices:
                        result.scores.add(sum_logprob=score(question.prompt, choice), tokens=1)
                yield inference_pb2.ScoreChoicesResponse(
                    results=inference_pb2.QuestionResults(results=self.garble(result))
                )
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        yield inference_pb2.ScoreChoicesResponse(
            complete=inference_pb2.ScoreComplete(scored=len(answered))
        )

    async def _begin(self, context: Any) -> int:
        metadata = dict(context.invocation_metadata())
        token = self._authenticator.verify(metadata["authorization"].removeprefix("Bearer "))
        self.callers.add(token.address)
        self.called.set()
        if self.refusals:
            self.refusals -= 1
            await self._fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "WORKER_BUSY")
        if self.error is not None:
            await self._fail(context, *self.error)
        return int(metadata["x-evalpool-dispatch"])

    async def _fail(self, context: Any, code: grpc.StatusCode, reason: str) -> None:
        told = "; ".join(f"{field}: {what}" for field, what in self.violations.items())
        status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=told or "as told")
        info = error_details_pb2.ErrorInfo(reason=reason, domain="evalpool", metadata=self.metadata)
        if reason:
            status.details.add().Pack(info)
        if self.violations:
            found = [
                error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
                for field, description in self.violations.items()
            ]
            status.details.add().Pack(error_details_pb2.BadRequest(field_violations=found))
        await context.abort_with_status(rpc_status.to_status(status))

    async def _wait(self, place: int) -> None:
        if place >= self.free and not self.open.is_set():
            self.reached.set()
            await self.open.wait()

    def _provenance(self, digest: str, dispatch: int) -> inference_pb2.Provenance:
        provenance = inference_pb2.Provenance(
            model_digest=digest,
            engine="double",
            engine_build=self.engine_build,
            worker=self.address,
            generation=self.generation,
            dispatch=dispatch,
        )
        self.forge(provenance)
        return provenance


def _told(piece: str, sampling: inference_pb2.Sampling) -> list[inference_pb2.TokenLogprobs]:
    if not sampling.HasField("logprobs"):
        return []
    token = inference_pb2.TokenLogprob(text=piece, piece=piece.encode(), logprob=-0.5)
    return [inference_pb2.TokenLogprobs(chosen=token, likeliest=[token] * sampling.logprobs)]

"""The worker's RPCs: unpack, take a slot and a model, let the engine work, pack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from sqlalchemy import Connection

from evalpool.inference.v1 import inference_pb2
from evalpool.models import ModelStore
from evalpool.values import Fields, parse_digest, parse_integer, parse_text
from evalpool.worker.v1 import worker_pb2, worker_pb2_grpc
from evalpool_runtime.database import Database
from evalpool_runtime.errors import (
    FailedPrecondition,
    ResourceExhausted,
    reasons,
)
from evalpool_runtime.replay import once
from evalpool_runtime.service import Runtime
from evalpool_worker.answers import (
    generation_chunk,
    generation_end,
    provenance,
    question_result,
)
from evalpool_worker.defaults import Defaults
from evalpool_worker.engine.base import Engine, FinishReason, GenerationEnd
from evalpool_worker.engine.errors import EngineError, InvalidParametersError
from evalpool_worker.listing import loaded_model, stored_models
from evalpool_worker.metrics import WorkerMetrics
from evalpool_worker.model_host import Models
from evalpool_worker.refusals import as_domain_error, unloaded
from evalpool_worker.relay import Relay
from evalpool_worker.requests import Scoring, WantedModel, parse_infer, parse_score_choices
from evalpool_worker.score_stream import ScoreStream
from evalpool_worker.settings import WorkerSettings
from evalpool_worker.slots import RETRY_SECONDS, Slot, Slots
from evalpool_worker.store import write_setting

DISPATCH_HEADER = "x-evalpool-dispatch"
MAX_SYSTEM_PROMPT = 16_384


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """Answers WorkerService."""

    def __init__(
        self,
        runtime: Runtime[WorkerSettings],
        database: Database,
        host: Models,
        store: ModelStore,
        slots: Slots,
        defaults: Defaults,
        generation: Callable[[], int],
        engine_build: str,
        metrics: WorkerMetrics,
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._host = host
        self._store = store
        self._slots = slots
        self._defaults = defaults
        self._generation = generation
        self._registers = bool(runtime.settings.router_endpoint)
        self._engine_build = engine_build
        self._metrics = metrics

    async def GetInfo(
        self, request: worker_pb2.GetInfoRequest, context: Any
    ) -> worker_pb2.GetInfoResponse:
        """Who this server is, and its engine."""
        return worker_pb2.GetInfoResponse(
            info=self._runtime.service_info(),
            engine=self._runtime.settings.engine,
            engine_build=self._engine_build,
            slots=self._slots.total,
        )

    async def ScoreChoices(
        self, request: inference_pb2.ScoreChoicesRequest, context: Any
    ) -> AsyncIterator[inference_pb2.ScoreChoicesResponse]:
        """Score the choices of many questions; results come as they complete."""
        work = parse_score_choices(request)
        dispatch = _dispatch(context)
        self._check_registered(dispatch)
        stream = ScoreStream(work.reference)
        with self._slots.taken() as slot:
            scoring = self._score(work, dispatch, stream, slot)
            async with aclosing(stream.during(scoring)) as messages:  # type: ignore[type-var]
                async for message in messages:
                    yield message

    async def Infer(
        self, request: inference_pb2.InferRequest, context: Any
    ) -> AsyncIterator[inference_pb2.InferResponse]:
        """Continue a prompt or a conversation."""
        work = parse_infer(
            request,
            max_tokens=self._defaults.max_tokens,
            system_prompt=self._defaults.system_prompt,
        )
        model = self._default_model(work.model)
        dispatch = _dispatch(context)
        self._check_registered(dispatch)
        with self._slots.taken() as slot:
            async with self._host.using(
                model.digest, model.name, model.sources, _ignore_progress
            ) as engine:
                slot.has_model()
                origin = self._origin(engine, dispatch, scoring=False)
                try:
                    events = self._metrics.counted(engine.generate(work.prompt, work.parameters))
                    async with aclosing(events):
                        async for event in events:
                            if isinstance(event, GenerationEnd):
                                yield inference_pb2.InferResponse(
                                    reference=work.reference,
                                    complete=_completed(event, origin),
                                )
                            else:
                                yield inference_pb2.InferResponse(
                                    reference=work.reference,
                                    chunk=generation_chunk(event),
                                )
                except EngineError as error:
                    raise as_domain_error(error) from error

    async def LoadModel(
        self, request: worker_pb2.LoadModelRequest, context: Any
    ) -> AsyncIterator[worker_pb2.LoadModelResponse]:
        """Fetch a model, check its digest and load it, with progress."""
        fields = Fields()
        digest = fields.parse("model.digest", parse_digest, request.model.digest)
        fields.check()
        relay: Relay[worker_pb2.LoadModelResponse] = Relay()

        def progress(stage: str, share: float) -> None:
            relay.tell(worker_pb2.LoadModelResponse(stage=stage, progress=share))

        async def load() -> None:
            async with self._host.using(
                digest, request.model.name, tuple(request.model.sources), progress
            ):
                loaded = next(model for model in self._host.loaded if model.digest == digest)
                relay.tell(
                    worker_pb2.LoadModelResponse(
                        stage="loading", progress=1.0, loaded=loaded_model(loaded)
                    )
                )

        async with aclosing(relay.during(load())) as told:  # type: ignore[type-var]
            async for messages in told:
                for message in messages:
                    yield message

    async def UnloadModel(
        self, request: worker_pb2.UnloadModelRequest, context: Any
    ) -> worker_pb2.UnloadModelResponse:
        """Free a loaded model that is not in use."""
        fields = Fields()
        digest = fields.parse("digest", parse_digest, request.digest)
        fields.check()
        await self._host.unload(digest)
        return worker_pb2.UnloadModelResponse()

    async def ListModels(
        self, request: worker_pb2.ListModelsRequest, context: Any
    ) -> worker_pb2.ListModelsResponse:
        """The models that are loaded or stored."""
        fields = Fields()
        size = fields.attempt(
            "page_size",
            lambda: parse_integer(request.page_size, at_least=1, at_most=1000, default=100),
        )
        fields.check()
        begin = self._runtime.page_tokens.decode("ListModels", None, request.page_token) or 0
        loaded = [loaded_model(model) for model in self._host.loaded]
        in_memory = {model.digest for model in loaded}
        stored = await asyncio.to_thread(stored_models, self._store, in_memory)
        models = [*loaded, *stored]
        end = begin + size
        return worker_pb2.ListModelsResponse(
            models=models[begin:end],
            next_page_token=self._runtime.page_tokens.encode("ListModels", None, end)
            if end < len(models)
            else "",
        )

    async def SetMaxTokens(
        self, request: worker_pb2.SetMaxTokensRequest, context: Any
    ) -> worker_pb2.SetMaxTokensResponse:
        """Set `max_tokens` for requests that do not name it."""
        fields = Fields()
        value = fields.attempt(
            "max_tokens", lambda: parse_integer(request.max_tokens, at_least=1, at_most=131_072)
        )
        fields.check()

        def work(connection: Connection) -> worker_pb2.SetMaxTokensResponse:
            write_setting(connection, "max_tokens", value)
            return worker_pb2.SetMaxTokensResponse(max_tokens=value)

        response = await once(self._database, worker_pb2.SetMaxTokensResponse, work)
        await self._defaults.refresh()
        return response

    async def SetSystemPrompt(
        self, request: worker_pb2.SetSystemPromptRequest, context: Any
    ) -> worker_pb2.SetSystemPromptResponse:
        """Set the system prompt for conversations that do not name one."""
        fields = Fields()
        value = fields.parse(
            "system_prompt",
            lambda text: parse_text(text, at_most=MAX_SYSTEM_PROMPT),
            request.system_prompt,
        )
        fields.check()

        def work(connection: Connection) -> worker_pb2.SetSystemPromptResponse:
            write_setting(connection, "system_prompt", value)
            return worker_pb2.SetSystemPromptResponse(system_prompt=value)

        response = await once(self._database, worker_pb2.SetSystemPromptResponse, work)
        await self._defaults.refresh()
        return response

    async def _score(self, work: Scoring, dispatch: int, stream: ScoreStream, slot: Slot) -> None:
        model = work.model
        async with self._host.using(
            model.digest, model.name, model.sources, stream.progress
        ) as engine:
            slot.has_model()
            origin = self._origin(engine, dispatch, scoring=True)
            stream.started([question.id for question in work.questions], origin.worker)
            try:
                async with aclosing(engine.score(work.questions)) as outcomes:  # type: ignore[type-var]
                    async for outcome in outcomes:
                        self._metrics.question(outcome)
                        stream.result(question_result(outcome, origin))
            except EngineError as error:
                raise as_domain_error(error) from error

    def _check_registered(self, dispatch: int) -> None:
        # The router may dispatch before the answer to our registration is here; an answer without
        # its generation would be discarded.
        if dispatch and self._registers and not self._generation():
            raise ResourceExhausted(
                reasons.ERROR_REASON_WORKER_BUSY,
                "the worker is not registered yet; try again soon",
                retry_after=RETRY_SECONDS,
            )

    def _origin(self, engine: Engine, dispatch: int, *, scoring: bool) -> inference_pb2.Provenance:
        info = engine.info
        if info is None:
            raise unloaded()
        return provenance(
            info,
            worker=self._runtime.identity.address,
            generation=self._generation(),
            dispatch=dispatch,
            scoring=scoring,
        )

    def _default_model(self, wanted: WantedModel) -> WantedModel:
        if wanted.digest:
            return wanted
        loaded = self._host.loaded
        if len(loaded) != 1:
            raise FailedPrecondition(
                reasons.ERROR_REASON_MODEL_NOT_FOUND,
                f"model.digest: it names none, and {len(loaded)} models are loaded; name one",
            )
        return WantedModel(loaded[0].digest, loaded[0].name, ())


def _completed(end: GenerationEnd, origin: inference_pb2.Provenance) -> inference_pb2.InferComplete:
    if end.finish_reason is FinishReason.ERROR:
        raise as_domain_error(
            InvalidParametersError(end.refused, end.message)
            if end.refused
            else EngineError(end.message)
        )
    return generation_end(end, origin)


def _dispatch(context: Any) -> int:
    for key, value in context.invocation_metadata() or ():
        if (
            key == DISPATCH_HEADER
            and isinstance(value, str)
            and value.isascii()
            and value.isdigit()
        ):
            return int(value[:18])
    return 0


def _ignore_progress(_stage: str, _share: float) -> None:
    """Infer has no message for progress."""

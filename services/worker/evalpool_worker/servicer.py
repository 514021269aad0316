"""The worker's RPCs: unpack, take a slot and a model, let the engine work, pack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from evalpool.inference.v1 import inference_pb2
from evalpool.models import ModelError, ModelStore, read_gguf
from evalpool.values import Fields, parse_digest, parse_integer, parse_text
from evalpool.worker.v1 import worker_pb2, worker_pb2_grpc
from evalpool_runtime.database import Database
from evalpool_runtime.errors import (
    FailedPrecondition,
    Internal,
    InvalidRequest,
    ResourceExhausted,
    Unavailable,
    reasons,
)
from evalpool_runtime.replay import once
from evalpool_runtime.service import Runtime
from evalpool_worker.answers import generation_end, provenance, question_result
from evalpool_worker.engine.base import (
    Engine,
    FinishReason,
    GenerationEnd,
    InvalidParametersError,
    NoModelLoadedError,
    QuestionFailure,
    QuestionResult,
)
from evalpool_worker.metrics import WorkerMetrics
from evalpool_worker.model_host import LoadedModel, ModelHost
from evalpool_worker.requests import WantedModel, parse_infer, parse_score_choices
from evalpool_worker.settings import WorkerSettings
from evalpool_worker.slots import RETRY_SECONDS, Slots
from evalpool_worker.store import write_setting

DISPATCH_HEADER = "x-evalpool-dispatch"
MAX_SYSTEM_PROMPT = 16_384
RESULTS_A_MESSAGE = 64


@dataclass
class Defaults:
    """What requests that do not say get; set by calls, kept in the database."""

    max_tokens: int
    system_prompt: str


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """Answers WorkerService."""

    def __init__(
        self,
        runtime: Runtime[WorkerSettings],
        database: Database,
        host: ModelHost,
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
        events: asyncio.Queue[inference_pb2.ScoreChoicesResponse | None] = asyncio.Queue()

        def progress(stage: str, share: float) -> None:
            events.put_nowait(
                inference_pb2.ScoreChoicesResponse(
                    reference=work.reference,
                    progress=inference_pb2.ScoreProgress(stage=stage, stage_progress=share),
                )
            )

        async def compute() -> None:
            try:
                async with self._host.using(
                    work.model.digest, work.model.name, work.model.sources, progress
                ) as engine:
                    origin = self._origin(engine, dispatch, scoring=True)
                    events.put_nowait(
                        inference_pb2.ScoreChoicesResponse(
                            reference=work.reference,
                            started=inference_pb2.ScoreStarted(
                                ids=[q.id for q in work.questions], worker=origin.worker
                            ),
                        )
                    )
                    async with aclosing(engine.score(work.questions)) as outcomes:  # type: ignore[type-var]
                        async for outcome in outcomes:
                            self._metrics.question(outcome)
                            events.put_nowait(_results(work.reference, outcome, origin))
            finally:
                events.put_nowait(None)

        tally = _Tally()
        with self._slots.taken():
            computing = asyncio.create_task(compute())
            try:
                async for message in _merged(events, work.reference):
                    tally.count(message)
                    yield message
                await computing
            except NoModelLoadedError as error:
                raise _unloaded() from error
            finally:
                computing.cancel()
                await asyncio.gather(computing, return_exceptions=True)
        yield tally.complete(work.reference)

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
        with self._slots.taken():
            async with self._host.using(
                model.digest, model.name, model.sources, _ignore_progress
            ) as engine:
                origin = self._origin(engine, dispatch, scoring=False)
                try:
                    async with aclosing(engine.generate(work.prompt, work.parameters)) as events:  # type: ignore[type-var]
                        async for event in events:
                            if isinstance(event, GenerationEnd):
                                self._metrics.generation(event)
                                yield inference_pb2.InferResponse(
                                    reference=work.reference,
                                    complete=_completed(event, origin),
                                )
                            else:
                                yield inference_pb2.InferResponse(
                                    reference=work.reference,
                                    chunk=inference_pb2.InferChunk(
                                        text=event.text, tokens=len(event.token_ids)
                                    ),
                                )
                except InvalidParametersError as error:
                    raise _invalid(error) from error
                except NoModelLoadedError as error:
                    raise _unloaded() from error

    async def LoadModel(
        self, request: worker_pb2.LoadModelRequest, context: Any
    ) -> AsyncIterator[worker_pb2.LoadModelResponse]:
        """Fetch a model, check its digest and load it, with progress."""
        fields = Fields()
        digest = fields.parse("model.digest", parse_digest, request.model.digest)
        fields.check()
        events: asyncio.Queue[worker_pb2.LoadModelResponse | None] = asyncio.Queue()

        def progress(stage: str, share: float) -> None:
            events.put_nowait(worker_pb2.LoadModelResponse(stage=stage, progress=share))

        async def load() -> None:
            try:
                async with self._host.using(
                    digest, request.model.name, tuple(request.model.sources), progress
                ):
                    return
            finally:
                events.put_nowait(None)

        loading = asyncio.create_task(load())
        try:
            while (event := await events.get()) is not None:
                yield event
            await loading
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        loaded = next(model for model in self._host.loaded if model.digest == digest)
        yield worker_pb2.LoadModelResponse(
            stage="loading", progress=1.0, loaded=_loaded_model(loaded)
        )

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
        loaded = [_loaded_model(model) for model in self._host.loaded]
        in_memory = {model.digest for model in loaded}
        stored = await asyncio.to_thread(_stored_models, self._store, in_memory)
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

        def work(connection: Any) -> worker_pb2.SetMaxTokensResponse:
            write_setting(connection, "max_tokens", value)
            return worker_pb2.SetMaxTokensResponse(max_tokens=value)

        response = await once(self._database, worker_pb2.SetMaxTokensResponse, work)
        self._defaults.max_tokens = response.max_tokens
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

        def work(connection: Any) -> worker_pb2.SetSystemPromptResponse:
            write_setting(connection, "system_prompt", value)
            return worker_pb2.SetSystemPromptResponse(system_prompt=value)

        response = await once(self._database, worker_pb2.SetSystemPromptResponse, work)
        self._defaults.system_prompt = response.system_prompt
        return response

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
            raise _unloaded()
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
                f"no model is named and {len(loaded)} are loaded; name one in model.digest",
            )
        return WantedModel(loaded[0].digest, loaded[0].name, ())


class _Tally:
    """Counts what a scoring request took."""

    def __init__(self) -> None:
        self._scored = 0
        self._failed = 0
        self._usage = inference_pb2.Usage()

    def count(self, message: inference_pb2.ScoreChoicesResponse) -> None:
        for result in message.results.results:
            if result.HasField("failure"):
                self._failed += 1
            else:
                self._scored += 1
            self._usage.prompt_tokens += result.usage.prompt_tokens
            self._usage.computed_tokens += result.usage.computed_tokens

    def complete(self, reference: str) -> inference_pb2.ScoreChoicesResponse:
        return inference_pb2.ScoreChoicesResponse(
            reference=reference,
            complete=inference_pb2.ScoreComplete(
                scored=self._scored, failed=self._failed, usage=self._usage
            ),
        )


async def _merged(
    events: asyncio.Queue[inference_pb2.ScoreChoicesResponse | None], reference: str
) -> AsyncIterator[inference_pb2.ScoreChoicesResponse]:
    """Yield events until the end, with results that wait together in one message."""
    ended = False
    while not ended:
        batch = [await events.get()]
        while not events.empty() and len(batch) < RESULTS_A_MESSAGE:
            batch.append(events.get_nowait())
        results = inference_pb2.QuestionResults()
        for event in batch:
            if event is None:
                ended = True
            elif event.HasField("results"):
                results.results.extend(event.results.results)
            else:
                yield event
        if results.results:
            yield inference_pb2.ScoreChoicesResponse(reference=reference, results=results)


def _results(
    reference: str, outcome: QuestionResult | QuestionFailure, origin: inference_pb2.Provenance
) -> inference_pb2.ScoreChoicesResponse:
    return inference_pb2.ScoreChoicesResponse(
        reference=reference,
        results=inference_pb2.QuestionResults(results=[question_result(outcome, origin)]),
    )


def _completed(end: GenerationEnd, origin: inference_pb2.Provenance) -> inference_pb2.InferComplete:
    if end.finish_reason is FinishReason.ERROR:
        raise Internal(reasons.ERROR_REASON_ENGINE_FAILED, end.message)
    return generation_end(end, origin)


def _invalid(error: InvalidParametersError) -> InvalidRequest:
    fields = Fields()
    fields.refuse(error.field, str(error))
    too_long = error.field == "prompt"
    return InvalidRequest(
        fields.violations,
        reason=reasons.ERROR_REASON_CONTEXT_TOO_LONG
        if too_long
        else reasons.ERROR_REASON_INVALID_FIELD,
    )


def _unloaded() -> Unavailable:
    return Unavailable(
        reasons.ERROR_REASON_UNAVAILABLE,
        "the model was unloaded before the request began; try again",
        retry_after=0.2,
    )


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


def _loaded_model(model: LoadedModel) -> worker_pb2.LoadedModel:
    return worker_pb2.LoadedModel(
        digest=model.digest,
        name=model.name,
        size_bytes=model.size_bytes,
        loaded=True,
        in_use=model.in_use,
        context_length=model.info.n_ctx_train,
        quantisation=model.info.quantisation,
    )


def _stored_models(store: ModelStore, in_memory: set[str]) -> list[worker_pb2.LoadedModel]:
    models = []
    for entry in store.entries():
        if entry.digest in in_memory:
            continue
        try:
            header = read_gguf(store.path(entry.digest))
        except ModelError:
            # The store may hold other files too, such as embedding models.
            continue
        models.append(
            worker_pb2.LoadedModel(
                digest=entry.digest,
                name=header.name or "",
                size_bytes=entry.size_bytes,
                context_length=header.context_length or 0,
                quantisation=header.quantisation or "",
            )
        )
    return models

"""The engine on llama.cpp, through the low-level interface of llama-cpp-python.

The model's weights are shared by two sets of contexts: those that score (see `scoring_pool`) and
one that generates (see `generation_loop`). Each context belongs to one thread of the engine's own;
results reach the caller's event loop by `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .base import (
    ChoiceQuestion,
    GenerationChunk,
    GenerationEnd,
    ProgressCallback,
    Prompt,
    QuestionFailure,
    QuestionResult,
    SamplingParameters,
)
from .chat_template import ChatTemplate
from .errors import (
    InvalidParametersError,
    ModelAlreadyLoadedError,
    ModelLoadError,
    NoModelLoadedError,
    PromptTooLongError,
)
from .generation_loop import GenerationLoop
from .generation_stream import GenerationStream
from .info import EngineInfo, EngineLoad, total_load
from .library import library_build
from .long_contexts import LongContexts
from .memory import free_memory
from .model import LoadedModel
from .sampling import TokenSampler
from .scoring_pool import ScoringCall, ScoringPool
from .shape import EngineSettings, EngineShape, GrowingShape, shape_for
from .tokenisation import Tokeniser

# Characters that are tokenised on the event loop: some milliseconds at most.
_SHORT_TEXT = 8192

# The least growth of the loaded share that is told.
_PROGRESS_STEP = 0.01


@dataclass(frozen=True, slots=True)
class _Beginning:
    """What a generation begins with; the sampler is to be freed."""

    tokens: tuple[int, ...]
    sampler: TokenSampler


@dataclass(frozen=True, slots=True)
class _Running:
    """A loaded model and everything that works on it."""

    model: LoadedModel
    tokeniser: Tokeniser
    template: ChatTemplate
    shape: EngineShape
    scoring: ScoringPool
    generation: GenerationLoop
    info: EngineInfo
    preparing: set[asyncio.Future[_Beginning]] = field(default_factory=set)


class LlamaCppEngine:
    """Scores and generates with a GGUF model on this machine's processor, or its GPU.

    Args:
        settings: How much of the machine to use.
        now: Wall clock, seconds since the epoch.
        clock: Monotonic clock, seconds.
        free_memory: Bytes that contexts for what is longer than usual may take now.
    """

    def __init__(
        self,
        settings: EngineSettings | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        free_memory: Callable[[], int] = free_memory,
    ) -> None:
        self._settings = settings or EngineSettings()
        self._now = now
        self._clock = clock
        self._free_memory = free_memory
        self._running: _Running | None = None
        self._closed = False
        self._changing = asyncio.Lock()

    @property
    def info(self) -> EngineInfo | None:
        """The loaded model and how it is run; None while none is loaded."""
        return self._running.info if self._running else None

    @property
    def load_now(self) -> EngineLoad:
        """What the engine has to do at this moment."""
        running = self._running
        if running is None:
            return total_load(())
        return EngineLoad(
            questions_waiting=running.scoring.waiting,
            questions_running=running.scoring.running,
            streams_waiting=running.generation.waiting,
            streams_running=running.generation.running,
            computed_tokens=running.scoring.computed_tokens,
            prompt_tokens=running.generation.prompt_tokens,
            completion_tokens=running.generation.completion_tokens,
            kv_cells=running.generation.cells,
            kv_used_cells=running.generation.used_cells,
        )

    async def load(
        self, path: Path, digest: str, progress: ProgressCallback | None = None
    ) -> EngineInfo:
        """Load the model in `path`; cancelling the task stops the loading.

        Raises:
            ModelLoadError: The file can't be loaded; the message says why.
            ModelAlreadyLoadedError: A model is loaded.
        """
        async with self._changing:
            if self._closed:
                raise ModelLoadError("The engine is closed.")
            if self._running is not None:
                raise ModelAlreadyLoadedError("A model is loaded; unload it first.")
            model = await self._load_model(path, progress)
            try:
                self._running = self._start(model, digest)
            except BaseException:
                model.free()
                raise
            return self._running.info

    async def unload(self) -> None:
        """End what runs and free the model; without one, nothing happens."""
        async with self._changing:
            running, self._running = self._running, None
            if running is not None:
                await asyncio.shield(_stop(running))

    async def close(self) -> None:
        """Unload and refuse everything from now on."""
        self._closed = True
        await self.unload()

    async def wait_idle(self) -> None:
        """Wait until nothing is queued or computed."""
        running = self._running
        if running is not None:
            await asyncio.to_thread(running.scoring.wait_idle)
            await asyncio.to_thread(running.generation.wait_idle)

    async def score(
        self, questions: Sequence[ChoiceQuestion]
    ) -> AsyncIterator[QuestionResult | QuestionFailure]:
        """Score questions; yield one result or failure for each, in the order they complete.

        Raises:
            NoModelLoadedError: No model is loaded.
        """
        scoring = self._require().scoring
        call = ScoringCall(questions)
        remaining = len(questions)
        scoring.submit(call)
        try:
            while remaining:
                for outcome in await call.outcomes.get():
                    remaining -= 1
                    yield outcome
        finally:
            scoring.cancel(call)

    async def generate(
        self, prompt: Prompt, parameters: SamplingParameters
    ) -> AsyncIterator[GenerationChunk | GenerationEnd]:
        """Generate a text: chunks, then exactly one `GenerationEnd`.

        Raises:
            NoModelLoadedError: No model is loaded.
            InvalidParametersError: A parameter, the grammar or the messages can't be used, or the
                prompt does not fit the context.
            EngineError: The machinery failed before it began.
        """
        parameters.validate()
        running = self._require()
        pieces = (prompt,) if isinstance(prompt, str) else await running.template.render(prompt)
        beginning = await self._prepare(running, pieces, parameters)
        if self._running is not running:
            beginning.sampler.free()
            raise NoModelLoadedError("The model was unloaded.")
        stream = GenerationStream(
            beginning.tokens,
            parameters,
            beginning.sampler,
            running.tokeniser,
            running.model.n_ctx_train,
            self._clock,
            self._settings.generate_chunk_seconds,
        )
        running.generation.submit(stream)
        try:
            while True:
                for event in await stream.events.get():
                    yield event
                    if isinstance(event, GenerationEnd):
                        return
        finally:
            running.generation.cancel(stream)

    def _require(self) -> _Running:
        if self._running is None:
            raise NoModelLoadedError("No model is loaded.")
        return self._running

    async def _load_model(self, path: Path, progress: ProgressCallback | None) -> LoadedModel:
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        told = -1.0

        def tell(share: float) -> bool:
            nonlocal told
            # llama.cpp tells of each of hundreds of tensors.
            grown = share - told >= _PROGRESS_STEP or told < 1.0 <= share
            if progress is not None and grown and not stop.is_set():
                told = share
                loop.call_soon_threadsafe(progress, share)
            return not stop.is_set()

        loading = asyncio.ensure_future(
            asyncio.to_thread(LoadedModel, path, tell, self._settings.gpu_layers)
        )
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            stop.set()
            loading.add_done_callback(_free_unwanted)
            raise

    def _start(self, model: LoadedModel, digest: str) -> _Running:
        shape = shape_for(model, self._settings)
        tokeniser = Tokeniser(model)
        template = ChatTemplate(model, tokeniser)
        long_contexts = LongContexts(model, self._free_memory)
        scoring = ScoringPool(
            model,
            tokeniser,
            GrowingShape(shape.score, model),
            shape.score_contexts,
            long_contexts,
            self._now,
        )
        return _Running(
            model=model,
            tokeniser=tokeniser,
            template=template,
            shape=shape,
            scoring=scoring,
            generation=GenerationLoop(
                model, GrowingShape(shape.generate, model), long_contexts, scoring
            ),
            info=_info(model, shape, digest),
        )

    async def _prepare(
        self, running: _Running, pieces: tuple[str, ...], parameters: SamplingParameters
    ) -> _Beginning:
        if self._running is not running:
            raise NoModelLoadedError("The model was unloaded.")
        if sum(map(len, pieces)) <= _SHORT_TEXT and not parameters.grammar:
            return _begin(running, pieces, parameters)
        # A million characters take more than a second, and a grammar may take any time.
        preparing = asyncio.ensure_future(asyncio.to_thread(_begin, running, pieces, parameters))
        running.preparing.add(preparing)
        preparing.add_done_callback(running.preparing.discard)
        try:
            return await asyncio.shield(preparing)
        except asyncio.CancelledError:
            preparing.add_done_callback(_free_unused)
            raise


def _begin(
    running: _Running, pieces: tuple[str, ...], parameters: SamplingParameters
) -> _Beginning:
    """Read a prompt and make its sampler; from any thread."""
    limit = running.model.n_ctx_train
    try:
        tokens = running.tokeniser.encode(*pieces)
    except UnicodeEncodeError as error:
        raise InvalidParametersError("prompt", "prompt must be valid Unicode text.") from error
    if not tokens:
        raise InvalidParametersError("prompt", "prompt must not be empty for this model.")
    if len(tokens) >= limit:
        raise PromptTooLongError(
            f"prompt has {len(tokens)} tokens; the model takes at most {limit - 1}."
        )
    return _Beginning(tokens, TokenSampler(running.model, parameters, tokens))


def _free_unused(preparing: asyncio.Future[_Beginning]) -> None:
    if not preparing.cancelled() and preparing.exception() is None:
        preparing.result().sampler.free()


def _free_unwanted(loading: asyncio.Future[LoadedModel]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result().free()


async def _stop(running: _Running) -> None:
    await running.template.close()
    await asyncio.to_thread(running.scoring.stop)
    await asyncio.to_thread(running.generation.stop)
    await asyncio.gather(*running.preparing, return_exceptions=True)
    running.model.free()


def _info(model: LoadedModel, shape: EngineShape, digest: str) -> EngineInfo:
    return EngineInfo(
        engine="llama_cpp",
        engine_build=library_build(),
        model_digest=digest,
        model_description=model.description,
        quantisation=model.quantisation,
        parameters=model.parameters,
        model_bytes=model.bytes,
        n_vocab=model.n_vocab,
        n_ctx_train=model.n_ctx_train,
        gpu_layers=model.gpu_layers,
        score_contexts=shape.score_contexts,
        score_threads=shape.score.threads,
        score_batch_tokens=shape.score.batch_tokens,
        score_context_tokens=shape.score.cells,
        generate_threads=shape.generate.threads,
        generate_batch_tokens=shape.generate.batch_tokens,
        generate_context_tokens=shape.generate.cells,
        generate_slots=shape.generate.sequences,
    )

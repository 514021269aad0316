"""The engine that asks an OpenAI-compatible server: vLLM, llama-server, SGLang and others.

The model is the server's: nothing is loaded here, and its digest is what the operator vouches for.
Such a server streams texts; it gives no log-probabilities of a prompt that could be relied on, so
nothing is scored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from .base import (
    UNKNOWN_TOKEN,
    ChatMessage,
    ChoiceQuestion,
    FailureCause,
    FinishReason,
    GenerationChunk,
    GenerationEnd,
    GenerationTimings,
    ProgressCallback,
    Prompt,
    QuestionFailure,
    QuestionResult,
    SamplingParameters,
    TemplatedChat,
)
from .errors import EngineError, ModelAlreadyLoadedError, ModelLoadError, NoModelLoadedError
from .given_templates import GivenTemplates
from .info import EngineInfo, EngineLoad
from .openai_answer import refusal
from .openai_request import Dialect, ask
from .openai_stream import Patience, WholeText, asked

_FINISH = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
_NOT_SCORED = "An OpenAI-compatible server gives no log-probabilities of a prompt."
_UNLISTED = (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED, httpx.codes.NOT_IMPLEMENTED)


@dataclass(frozen=True, slots=True)
class OpenAISettings:
    """The server that an engine asks.

    Attributes:
        url: Its base URL, `/v1` included.
        model: The model's name there.
        dialect: What it takes beside OpenAI's own parameters.
        key: Its API key; empty for none. Never shown.
        silent_seconds: How long it may send nothing, before its answer and within it.
        slots: Streams at the same time; told, not enforced.
    """

    url: str
    model: str
    dialect: Dialect = "openai"
    key: str = ""
    silent_seconds: float = 120.0
    slots: int = 16

    def __repr__(self) -> str:
        return f"OpenAISettings(url={self.url!r}, model={self.model!r})"


def openai_build(settings: OpenAISettings) -> str:
    """The engine's build: known before the server is asked, and no part of where it is."""
    return (
        f"openai-compatible server ({settings.dialect}), model {settings.model}, "
        f"httpx {httpx.__version__}"
    )


class OpenAIEngine:
    """Streams from an OpenAI-compatible server.

    Args:
        settings: Which server.
        clock: Monotonic clock, seconds.
    """

    def __init__(
        self, settings: OpenAISettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._client = httpx.AsyncClient(
            base_url=settings.url,
            headers={"Authorization": f"Bearer {settings.key}"} if settings.key else {},
            # `Patience` bounds every wait.
            timeout=None,  # noqa: S113
            # A connection each: a server may close one that is kept at the very moment when the
            # next request goes out on it, and connecting is nothing beside generating.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._templates = GivenTemplates("", "")
        self._info: EngineInfo | None = None
        self._unloaded = asyncio.Event()
        self._closed = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._prompt_tokens = 0
        self._completion_tokens = 0

    @property
    def info(self) -> EngineInfo | None:
        """The model and how it is run; None until the server was seen."""
        return self._info

    @property
    def load_now(self) -> EngineLoad:
        """What the engine has to do at this moment; what waits, waits at the server."""
        return EngineLoad(
            questions_waiting=0,
            questions_running=0,
            streams_waiting=0,
            streams_running=self._running,
            computed_tokens=0,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            kv_cells=0,
            kv_used_cells=0,
        )

    async def load(
        self, path: Path, digest: str, progress: ProgressCallback | None = None
    ) -> EngineInfo:
        """See whether the server is there and has the model.

        Args:
            path: Not looked at: the weights are the server's.
            digest: What the operator vouches that the server runs.
            progress: Told of the end alone.

        Raises:
            ModelLoadError: The server can't be reached, refuses, or lists other models only.
            ModelAlreadyLoadedError: A model is loaded.
        """
        if self._closed:
            raise ModelLoadError("The engine is closed.")
        if self._info is not None:
            raise ModelAlreadyLoadedError("A model is loaded; unload it first.")
        try:
            listed = await self._listed_models()
        except EngineError as error:
            raise ModelLoadError(str(error)) from error
        if listed and self._settings.model not in listed:
            raise ModelLoadError(
                f"The server has no model {self._settings.model}; it has {', '.join(listed)[:300]}."
            )
        self._unloaded = asyncio.Event()
        self._prompt_tokens = self._completion_tokens = 0
        self._info = _info(self._settings, digest)
        if progress is not None:
            progress(1.0)
        return self._info

    async def unload(self) -> None:
        """End what streams; the server keeps its model."""
        self._info = None
        self._unloaded.set()
        await self._templates.close()

    async def close(self) -> None:
        """Unload, close the connections and refuse everything from now on."""
        self._closed = True
        await self.unload()
        await self._client.aclose()

    async def wait_idle(self) -> None:
        """Wait until nothing streams."""
        await self._idle.wait()

    async def score(
        self, questions: Sequence[ChoiceQuestion]
    ) -> AsyncIterator[QuestionResult | QuestionFailure]:
        """Fail every question, for another worker to score.

        Raises:
            NoModelLoadedError: No model is loaded.
        """
        self._require()
        for question in questions:
            yield QuestionFailure(question.id, _NOT_SCORED, FailureCause.ENGINE)

    async def generate(
        self, prompt: Prompt, parameters: SamplingParameters
    ) -> AsyncIterator[GenerationChunk | GenerationEnd]:
        """Generate a text: chunks, then exactly one `GenerationEnd`.

        Where the server tells no usage, each of its events counts as a token, and the prompt's
        tokens are not known: 0.

        Raises:
            NoModelLoadedError: No model is loaded.
            InvalidParametersError: The server refuses a parameter, or has none that it can be
                mapped to, or the prompt is too long for it.
            EngineError: The server could not be reached, refused, was silent or broke off before
                anything came.
        """
        parameters.validate()
        unloaded = self._require()
        started = self._clock()
        self._count(1)
        try:
            patience = Patience(self._settings.silent_seconds, unloaded)
            path, body = ask(
                await self._rendered(prompt),
                parameters,
                model=self._settings.model,
                dialect=self._settings.dialect,
            )
            text = WholeText(parameters.stop)
            reason, message, usage = FinishReason.ERROR, "", None
            sampled = sent = 0
            answered = first = None
            try:
                async with asked(self._client, path, body, patience) as answer:
                    answered = self._clock()
                    word: str | None = None
                    while not text.stopped and (piece := await answer.next()) is not None:
                        usage = piece.usage or usage
                        # Nothing but counts belongs after the reason.
                        added, word = ("" if word else piece.text), word or piece.finish_reason
                        if not added:
                            continue
                        first = first or self._clock()
                        sampled += 1
                        self._completion_tokens += 1
                        if given := text.feed(added):
                            yield GenerationChunk(given, (UNKNOWN_TOKEN,) * (sampled - sent))
                            sent = sampled
                    reason = FinishReason.STOP if text.stopped else _reason(word)
            except NoModelLoadedError as error:
                if not sent:
                    raise
                reason, message = FinishReason.CANCELLED, str(error)
            except EngineError as error:
                if not sent:
                    raise
                message = str(error)
            prompt_tokens, told = usage or (0, sampled)
            self._prompt_tokens += prompt_tokens
            # The server counts an end token too, and tokens that came in one event.
            self._completion_tokens += max(0, told - sampled)
            rest, unsent = text.finish(), max(told, sampled) - sent
            if rest or unsent:
                yield GenerationChunk(rest, (UNKNOWN_TOKEN,) * unsent)
        finally:
            self._count(-1)
        ended = self._clock()
        answered = ended if answered is None else answered
        first = ended if first is None else first
        timings = GenerationTimings(answered - started, first - answered, ended - first)
        yield GenerationEnd(reason, prompt_tokens, max(told, sampled), timings, message)

    async def _listed_models(self) -> list[str]:
        """The names that the server lists; none where it does not list."""
        patience = Patience(self._settings.silent_seconds, asyncio.Event())
        response = await patience.wait(self._client.get("models"))
        if response.status_code in _UNLISTED:
            return []
        if response.status_code != httpx.codes.OK:
            raise refusal(response.status_code, response.headers, response.content)
        try:
            models = response.json()["data"]
            return [str(model["id"]) for model in models]
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError("The server's list of models can't be read.") from error

    async def _rendered(self, prompt: Prompt) -> str | Sequence[ChatMessage]:
        return await self._templates.render(prompt) if isinstance(prompt, TemplatedChat) else prompt

    def _require(self) -> asyncio.Event:
        if self._info is None:
            raise NoModelLoadedError("No model is loaded.")
        return self._unloaded

    def _count(self, change: int) -> None:
        self._running += change
        if self._running:
            self._idle.clear()
        else:
            self._idle.set()


def _reason(word: str | None) -> FinishReason:
    if word is None:
        raise EngineError("The server's answer ended in the middle.")
    if word not in _FINISH:
        raise EngineError(f"The server ended the text for a reason of its own: {word[:100]}.")
    return _FINISH[word]


def _info(settings: OpenAISettings, digest: str) -> EngineInfo:
    return EngineInfo(
        engine="openai",
        engine_build=openai_build(settings),
        model_digest=digest,
        model_description=settings.model,
        quantisation="",
        parameters=0,
        model_bytes=0,
        n_vocab=0,
        n_ctx_train=0,
        score_contexts=0,
        score_threads=0,
        score_batch_tokens=0,
        score_context_tokens=0,
        generate_threads=0,
        generate_batch_tokens=0,
        generate_context_tokens=0,
        generate_slots=settings.slots,
        gpu_layers=0,
        vouched=True,
    )

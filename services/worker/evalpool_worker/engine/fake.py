"""An engine without a model: hashes where a model would compute, for tests of what is above it.

It keeps the whole contract of `Engine` (results as they complete, slots, cancellation, limits,
stop texts, grammars, whole characters) and gives the same answers for the same input everywhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from .base import (
    ChatMessage,
    ChoiceQuestion,
    ChoiceScore,
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
    TokenLogprobs,
)
from .errors import (
    InvalidParametersError,
    ModelAlreadyLoadedError,
    ModelLoadError,
    NoModelLoadedError,
    PromptTooLongError,
)
from .fake_grammar import parse_grammar
from .fake_logprobs import fake_logprobs
from .given_templates import GivenTemplates
from .info import EngineInfo, EngineLoad
from .text_stream import TextStream

_TOKEN_BYTES = 3
_WORDS = (
    *("one", "two", "three", "river", "stone", "small", "green", "light", "house", "water"),
    *("naïve", "café", "über", "señor", "東京", "Ελλάδα", "мир", "🙂", "🎻", "night", "always"),
)
_OTHERS = tuple(word.encode()[:_TOKEN_BYTES] for word in _WORDS)
_UNLOADED = "The model was unloaded."

Step = Callable[[], Awaitable[None]]
ChoiceScorer = Callable[[str, str, str], float]


async def _give_way() -> None:
    await asyncio.sleep(0)


def hashed_score(model_digest: str, prompt: str, choice: str) -> float:
    """A log-probability between -1 and -5 a token, from a hash of everything."""
    share = _number(model_digest, prompt, choice) / 2**64
    return -(1.0 + 4.0 * share) * len(_tokens(choice))


class FakeEngine:
    """Answers at once, or as fast as `step` lets it.

    Args:
        step: Awaited before each question and each token; a test can hold the engine with it.
        score_choice: The log-probability of a choice, given model digest, prompt and choice.
        context_tokens: Longest prompt with a choice or a generated text. A token is three bytes.
        slots: Streams at the same time.
        now: Wall clock, seconds since the epoch.
        clock: Monotonic clock, seconds.
    """

    def __init__(
        self,
        step: Step = _give_way,
        score_choice: ChoiceScorer = hashed_score,
        context_tokens: int = 2048,
        slots: int = 16,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._step = step
        self._score_choice = score_choice
        self._context_tokens = context_tokens
        self._slot_count = slots
        self._slots = asyncio.Semaphore(slots)
        self._now = now
        self._clock = clock
        self._info: EngineInfo | None = None
        self._unloaded = asyncio.Event()
        self._templates = GivenTemplates("", "")
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._counts = {
            "questions_waiting": 0,
            "questions_running": 0,
            "streams_waiting": 0,
            "streams_running": 0,
            "computed_tokens": 0,
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "kv_used_cells": 0,
        }

    @property
    def info(self) -> EngineInfo | None:
        """The loaded model and how it is run; None while none is loaded."""
        return self._info

    @property
    def load_now(self) -> EngineLoad:
        """What the engine has to do at this moment."""
        cells = 0 if self._info is None else self._info.generate_context_tokens
        return EngineLoad(**self._counts, kv_cells=cells)

    async def load(
        self, path: Path, digest: str, progress: ProgressCallback | None = None
    ) -> EngineInfo:
        """Take a file for a model if it begins as a GGUF does.

        Raises:
            ModelLoadError: The file can't be read or is no GGUF.
            ModelAlreadyLoadedError: A model is loaded.
        """
        if self._closed:
            raise ModelLoadError("The engine is closed.")
        if self._info is not None:
            raise ModelAlreadyLoadedError("A model is loaded; unload it first.")
        try:
            size, beginning = await asyncio.to_thread(_read_beginning, path)
        except OSError as error:
            raise ModelLoadError(f"{path.name} can't be read: {error.strerror}.") from error
        if beginning != b"GGUF":
            raise ModelLoadError(f"{path.name} can't be loaded as a GGUF model: no GGUF magic.")
        if progress is not None:
            progress(0.0)
            progress(1.0)
        self._counts.update(computed_tokens=0, prompt_tokens=0, completion_tokens=0)
        self._unloaded = asyncio.Event()
        self._info = EngineInfo(
            engine="fake",
            engine_build="fake 1",
            model_digest=digest,
            model_description="fake",
            quantisation="none",
            parameters=0,
            model_bytes=size,
            n_vocab=256,
            n_ctx_train=self._context_tokens,
            gpu_layers=0,
            score_contexts=1,
            score_threads=1,
            score_batch_tokens=256,
            score_context_tokens=self._context_tokens,
            generate_threads=1,
            generate_batch_tokens=256,
            generate_context_tokens=self._context_tokens * self._slot_count,
            generate_slots=self._slot_count,
        )
        return self._info

    async def unload(self) -> None:
        """Forget the model; what runs ends."""
        self._info = None
        self._unloaded.set()
        await self._templates.close()

    async def close(self) -> None:
        """Unload and refuse everything from now on."""
        self._closed = True
        await self.unload()

    async def wait_idle(self) -> None:
        """Wait until nothing is queued or running."""
        await self._idle.wait()

    async def score(
        self, questions: Sequence[ChoiceQuestion]
    ) -> AsyncIterator[QuestionResult | QuestionFailure]:
        """Score questions, one after another.

        Raises:
            NoModelLoadedError: No model is loaded.
        """
        info, unloaded = self._require(), self._unloaded
        waiting = len(questions)
        self._count("questions_waiting", waiting)
        try:
            for question in questions:
                waiting -= 1
                self._count("questions_waiting", -1)
                self._count("questions_running", 1)
                try:
                    started = self._now()
                    alive = await self._paced(unloaded)
                    outcome = (
                        self._outcome(info, question, started)
                        if alive
                        else QuestionFailure(question.id, _UNLOADED, FailureCause.UNLOADED)
                    )
                finally:
                    self._count("questions_running", -1)
                yield outcome
        finally:
            self._count("questions_waiting", -waiting)

    async def generate(
        self, prompt: Prompt, parameters: SamplingParameters
    ) -> AsyncIterator[GenerationChunk | GenerationEnd]:
        """Generate a text: chunks, then exactly one `GenerationEnd`.

        Raises:
            NoModelLoadedError: No model is loaded.
            InvalidParametersError: A parameter, the grammar or the messages can't be used, or the
                prompt does not fit the context.
        """
        info, unloaded = self._require(), self._unloaded
        parameters.validate()
        text = await self._text(prompt)
        prompt_tokens = len(_tokens(text))
        if not prompt_tokens:
            raise InvalidParametersError("prompt", "prompt must not be empty for this model.")
        if prompt_tokens >= self._context_tokens:
            raise PromptTooLongError(
                f"prompt has {prompt_tokens} tokens; "
                f"the model takes at most {self._context_tokens - 1}."
            )
        completion = _completion(info.model_digest, text, parameters)
        submitted = self._clock()
        slots = self._slots
        self._count("streams_waiting", 1)
        try:
            await slots.acquire()
        finally:
            self._count("streams_waiting", -1)
        self._count("streams_running", 1)
        sampled = 0
        self._counts["kv_used_cells"] += prompt_tokens
        try:
            started = self._clock()
            self._counts["prompt_tokens"] += prompt_tokens
            stream = TextStream(parameters.stop)
            most = min(parameters.max_tokens, self._context_tokens - prompt_tokens)
            reason, message, unsent = FinishReason.STOP, "", []
            logprobs: list[TokenLogprobs] = []
            for token in _tokens(completion):
                if not await self._paced(unloaded):
                    reason, message = FinishReason.CANCELLED, _UNLOADED
                    break
                sampled += 1
                self._counts["completion_tokens"] += 1
                self._counts["kv_used_cells"] += 1
                unsent.append(int.from_bytes(token, "big"))
                if parameters.logprobs is not None:
                    logprobs.append(fake_logprobs(token, _OTHERS, parameters.logprobs))
                if piece := stream.feed(token):
                    yield GenerationChunk(piece, tuple(unsent), tuple(logprobs))
                    unsent, logprobs = [], []
                if stream.stopped:
                    break
                if sampled >= most:
                    reason = FinishReason.LENGTH
                    break
            rest = stream.finish()
            if rest or unsent:
                yield GenerationChunk(rest, tuple(unsent), tuple(logprobs))
        finally:
            self._count("streams_running", -1)
            self._counts["kv_used_cells"] -= prompt_tokens + sampled
            slots.release()
        timings = GenerationTimings(started - submitted, 0.0, self._clock() - started)
        yield GenerationEnd(reason, prompt_tokens, sampled, timings, message)

    async def _text(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        if isinstance(prompt, TemplatedChat):
            return await self._templates.render(prompt)
        return _transcript(prompt)

    def _count(self, name: str, change: int) -> None:
        self._counts[name] += change
        busy = ("questions_waiting", "questions_running", "streams_waiting", "streams_running")
        if any(self._counts[each] for each in busy):
            self._idle.clear()
        else:
            self._idle.set()

    def _require(self) -> EngineInfo:
        if self._info is None:
            raise NoModelLoadedError("No model is loaded.")
        return self._info

    async def _paced(self, unloaded: asyncio.Event) -> bool:
        """Wait for the next step; False where the model went before it came."""
        if unloaded.is_set():
            return False
        step = asyncio.ensure_future(self._step())
        gone = asyncio.ensure_future(unloaded.wait())
        try:
            await asyncio.wait((step, gone), return_when=asyncio.FIRST_COMPLETED)
            if step.done():
                step.result()
            return not unloaded.is_set()
        finally:
            step.cancel()
            gone.cancel()

    def _outcome(
        self, info: EngineInfo, question: ChoiceQuestion, started: float
    ) -> QuestionResult | QuestionFailure:
        if refusal := self._refusal(question):
            return QuestionFailure(question.id, *refusal)
        scores = tuple(
            ChoiceScore(self._score_choice(info.model_digest, prompt, choice), len(_tokens(choice)))
            for prompt, choice in question.pairs
        )
        prompt_tokens = max(1, *(len(_tokens(prompt)) for prompt, _ in question.pairs))
        computed = prompt_tokens + sum(score.tokens - 1 for score in scores)
        self._counts["computed_tokens"] += computed
        return QuestionResult(question.id, scores, prompt_tokens, computed, started, self._now())

    def _refusal(self, question: ChoiceQuestion) -> tuple[str, FailureCause] | None:
        if not question.choices:
            return "The question has no choices.", FailureCause.QUESTION
        for number, (prompt, choice) in enumerate(question.pairs, start=1):
            if not choice:
                return f"Choice {number} adds no tokens to the prompt.", FailureCause.QUESTION
            tokens = len(_tokens(prompt + choice))
            if tokens > self._context_tokens:
                return (
                    f"The prompt with choice {number} has {tokens} tokens; "
                    f"the model's context holds {self._context_tokens}."
                ), FailureCause.CONTEXT
        if len(question.choices) > 1 and len(set(question.pairs)) == 1:
            return "All choices are the same to the model's tokeniser.", FailureCause.QUESTION
        return None


def _read_beginning(path: Path) -> tuple[int, bytes]:
    with path.open("rb") as file:
        return path.stat().st_size, file.read(4)


def _transcript(messages: Sequence[ChatMessage]) -> str:
    if not messages:
        raise InvalidParametersError("messages", "messages must hold at least one message.")
    return "".join(f"{message.role}: {message.content}\n" for message in messages)


def _completion(digest: str, prompt: str, parameters: SamplingParameters) -> str:
    seed = parameters.seed if parameters.temperature > 0 else 0
    # Reproducible on purpose: this engine's texts are test data.
    source = random.Random(_number(digest, prompt, str(seed)))  # noqa: S311
    if parameters.grammar:
        return parse_grammar(parameters.grammar).text(source)
    return " ".join(source.choice(_WORDS) for _ in range(source.randint(20, 60)))


def _tokens(text: str) -> list[bytes]:
    data = text.encode("utf-8", errors="replace")
    return [data[i : i + _TOKEN_BYTES] for i in range(0, len(data), _TOKEN_BYTES)]


def _number(*parts: str) -> int:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", errors="replace")
        digest.update(len(data).to_bytes(8, "big") + data)
    return int.from_bytes(digest.digest()[:8], "big")

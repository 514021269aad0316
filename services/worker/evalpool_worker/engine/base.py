"""What an engine is: the values that go in and come out, and the interface.

An engine holds at most one model. It scores the choices of questions by log-probability and
generates text. Everything above it (the worker's RPCs, its slots, its settings) knows engines only
through this module, `errors` and `info`, so that a test can put `FakeEngine` where the worker has
`LlamaCppEngine`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .errors import InvalidParametersError
from .info import EngineInfo, EngineLoad


@dataclass(frozen=True, slots=True)
class ChoiceQuestion:
    """A prompt and the texts that may continue it.

    Attributes:
        id: Given back with the result.
        prompt: What comes before every choice. May be empty where the model has a BOS or EOS token.
        choices: Whole continuations, the delimiter included (`" " + answer`).
        prompts: What comes before each choice, where each has its own.
    """

    id: str
    prompt: str
    choices: tuple[str, ...]
    prompts: tuple[str, ...] = ()

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """What comes before each choice, and the choice."""
        prompts = self.prompts or (self.prompt,) * len(self.choices)
        return tuple(zip(prompts, self.choices, strict=True))


@dataclass(frozen=True, slots=True)
class ChoiceScore:
    """How likely the model holds one choice.

    Attributes:
        sum_logprob: Sum of the natural logarithms of the probabilities of the choice's tokens.
        tokens: How many tokens the choice has, those that it shares with other choices included.
    """

    sum_logprob: float
    tokens: int


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """One question's scores, in the order of its choices.

    Attributes:
        id: The question's id.
        scores: One a choice.
        prompt_tokens: Tokens of the prompt, BOS included.
        computed_tokens: Tokens that the model computed for the question. What several choices
            share counts once, so this is less than a plain evaluation would compute.
        started_at: When its first token went to the model, in seconds since the epoch.
        finished_at: When its last score was known, in seconds since the epoch.
    """

    id: str
    scores: tuple[ChoiceScore, ...]
    prompt_tokens: int
    computed_tokens: int
    started_at: float
    finished_at: float


class FailureCause(enum.Enum):
    """What kept a question from being scored."""

    ENGINE = "engine"
    """The machinery failed, or has too little memory for it."""
    UNLOADED = "unloaded"
    """The model was unloaded before it was scored."""
    CONTEXT = "context"
    """It is longer than the model's own context."""
    QUESTION = "question"
    """The model can't score it, however often it is tried."""


@dataclass(frozen=True, slots=True)
class QuestionFailure:
    """A question that has no scores, and why.

    Attributes:
        id: The question's id.
        reason: One sentence.
        cause: What kind of a reason it is.
    """

    id: str
    reason: str
    cause: FailureCause

    @property
    def retriable(self) -> bool:
        """Whether another attempt, perhaps at another worker, may succeed."""
        return self.cause in (FailureCause.ENGINE, FailureCause.UNLOADED)


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a chat; the role is one that the model's template knows."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class TemplatedChat:
    """Messages with the Jinja template that renders them in place of the model's own."""

    messages: tuple[ChatMessage, ...]
    template: str


MOST_LOGPROBS = 20
"""Most of the likeliest tokens that a generation tells of, at each place of its text."""


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """How the next token is chosen, and when generation ends.

    Attributes:
        max_tokens: At most this many tokens, at least 1.
        temperature: 0 takes the likeliest token; otherwise logits are divided by it.
        top_k: Keep the k likeliest tokens; 0 keeps all.
        top_p: Keep the likeliest tokens that hold this probability together; 1 keeps all.
        min_p: Drop tokens less likely than this share of the likeliest; 0 keeps all.
        repeat_penalty: Divides the logits of tokens among the last `penalty_last_n`; 1 is off.
        frequency_penalty: Subtracted once for every time a token was among them; 0 is off.
        presence_penalty: Subtracted once from tokens among them; 0 is off.
        penalty_last_n: How many of the last tokens the penalties look at.
        seed: Of the random choice, 0 to 2**32 - 2. The same seed, settings and prompt give the
            same text on the same engine and build while it generates nothing else: what else is
            in a batch shows in the last bits of its logits.
        grammar: GBNF with a rule named `root`; empty for none.
        stop: Texts that end generation and are not given out.
        logprobs: Give each token's log-probability, and those of so many of the likeliest in its
            place, 0 to `MOST_LOGPROBS`; None gives none.
    """

    max_tokens: int = 256
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    seed: int = 0
    grammar: str = ""
    stop: tuple[str, ...] = ()
    logprobs: int | None = None

    def validate(self) -> None:
        """Check every field.

        Raises:
            InvalidParametersError: Naming the first field that is out of range.
        """
        checks: tuple[tuple[str, bool, str], ...] = (
            ("max_tokens", self.max_tokens >= 1, "must be at least 1"),
            ("temperature", _within(self.temperature, 0.0, 100.0), "must be from 0 to 100"),
            ("top_k", self.top_k >= 0, "must be 0 (all) or more"),
            (
                "top_p",
                _within(self.top_p, 0.0, 1.0) and self.top_p > 0,
                "must be above 0 and at most 1",
            ),
            ("min_p", _within(self.min_p, 0.0, 1.0), "must be from 0 to 1"),
            (
                "repeat_penalty",
                _within(self.repeat_penalty, 0.0, 100.0) and self.repeat_penalty > 0,
                "must be above 0 and at most 100",
            ),
            (
                "frequency_penalty",
                _within(self.frequency_penalty, -100.0, 100.0),
                "must be from -100 to 100",
            ),
            (
                "presence_penalty",
                _within(self.presence_penalty, -100.0, 100.0),
                "must be from -100 to 100",
            ),
            ("penalty_last_n", 0 <= self.penalty_last_n <= 65536, "must be from 0 to 65536"),
            # llama.cpp takes the highest 32-bit number to mean a seed of its own choice.
            ("seed", 0 <= self.seed < 2**32 - 1, "must be from 0 to 2**32 - 2"),
            ("stop", all(self.stop), "must not hold an empty text"),
            (
                "logprobs",
                self.logprobs is None or 0 <= self.logprobs <= MOST_LOGPROBS,
                f"must be from 0 to {MOST_LOGPROBS}",
            ),
        )
        for field, holds, rule in checks:
            if not holds:
                raise InvalidParametersError(field, f"{field} {rule}.")


def _within(value: float, low: float, high: float) -> bool:
    return math.isfinite(value) and low <= value <= high


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely the model held one token.

    Attributes:
        token_id: Its number in the vocabulary.
        piece: The bytes that it adds to the text; none for control tokens.
        text: For people: those bytes as text, or how a control token is written.
        logprob: Natural logarithm of its probability in the model's own distribution, before
            anything that `SamplingParameters` says.
    """

    token_id: int
    piece: bytes
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The token that was taken, and the likeliest ones in its place, the likeliest first."""

    chosen: TokenLogprob
    likeliest: tuple[TokenLogprob, ...]


UNKNOWN_TOKEN = -1
"""Stands for a token that was sampled and whose number is not known."""


@dataclass(frozen=True, slots=True)
class GenerationChunk:
    """The next piece of a generated text.

    Attributes:
        text: Whole characters; never a part of one, never a part of a stop text.
        token_ids: The tokens sampled since the chunk before. A token whose bytes do not yet make
            a character comes with the chunk that completes it. `UNKNOWN_TOKEN` where a remote
            server does not tell them.
        logprobs: One for each of these tokens where they were asked for, else none.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()


class FinishReason(enum.Enum):
    """Why generation ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class GenerationTimings:
    """Seconds that one generation spent in each stage, by a monotonic clock.

    Attributes:
        queued: From the request to the first of its tokens in a batch.
        prefill: From there to its first sampled token.
        decode: From the first sampled token to the end.
    """

    queued: float
    prefill: float
    decode: float


@dataclass(frozen=True, slots=True)
class GenerationEnd:
    """The last thing that `generate` yields, always, once.

    Attributes:
        finish_reason: `STOP` at the model's end token or a stop text, `LENGTH` at `max_tokens` or
            where the context is full, `CANCELLED` where the model was unloaded, `ERROR` with a
            message where the machinery failed.
        prompt_tokens: Tokens of the prompt, BOS included.
        completion_tokens: Tokens sampled, those of a stop text included, the end token not.
        timings: Where the time went.
        message: One sentence for `ERROR` and `CANCELLED`, else empty.
        refused: The parameter that is at fault for an `ERROR`, as `InvalidParametersError` names
            it; empty where it was the machinery.
        shared_tokens: Of the prompt's, those that were computed for another stream.
    """

    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    timings: GenerationTimings
    message: str = ""
    refused: str = ""
    shared_tokens: int = 0

    @property
    def computed_tokens(self) -> int:
        """Tokens that were computed for this stream."""
        return self.prompt_tokens - self.shared_tokens + self.completion_tokens


Prompt = str | Sequence[ChatMessage] | TemplatedChat
"""A text that goes to the model as it is, or messages that go through a template: the model's own,
or the one that comes with them."""

ProgressCallback = Callable[[float], None]
"""Called with the loaded share of the model, 0 to 1, in the event loop's thread."""


class Engine(Protocol):
    """One model at a time: scores and generates for any number of callers at once.

    All methods belong to one event loop. Iterators may be closed, or their task cancelled, at any
    moment; what they held in the engine is free after the batch that is being computed.
    """

    @property
    def info(self) -> EngineInfo | None:
        """The loaded model and how it is run; None while none is loaded."""
        ...

    @property
    def load_now(self) -> EngineLoad:
        """What the engine has to do at this moment."""
        ...

    async def load(
        self, path: Path, digest: str, progress: ProgressCallback | None = None
    ) -> EngineInfo:
        """Load the model in `path`.

        Args:
            path: A GGUF file.
            digest: Its SHA-256, already checked; recorded, not computed again.
            progress: Told how far loading is.

        Raises:
            ModelLoadError: The file can't be loaded; the message says why.
            ModelAlreadyLoadedError: A model is loaded.
        """
        ...

    async def unload(self) -> None:
        """Free the model; without one, nothing happens.

        What runs is ended first: questions fail as retriable, generations end as `CANCELLED`.
        """
        ...

    async def close(self) -> None:
        """Unload and refuse everything from now on."""
        ...

    async def wait_idle(self) -> None:
        """Wait until nothing is queued or computed: what runs has ended, cancelled calls are gone.

        For draining; whoever waits keeps new calls away.
        """
        ...

    def score(
        self, questions: Sequence[ChoiceQuestion]
    ) -> AsyncIterator[QuestionResult | QuestionFailure]:
        """Score questions; yield one result or failure for each, in the order they complete.

        Raises:
            NoModelLoadedError: At the first step of the iteration.
        """
        ...

    def generate(
        self, prompt: Prompt, parameters: SamplingParameters
    ) -> AsyncIterator[GenerationChunk | GenerationEnd]:
        """Generate a text: chunks, then exactly one `GenerationEnd`.

        Raises:
            NoModelLoadedError: At the first step of the iteration.
            InvalidParametersError: Likewise, where a parameter, the grammar, the messages or their
                template can't be used, or the prompt does not fit the context.
            EngineError: Likewise, where the machinery failed before it began.
        """
        ...

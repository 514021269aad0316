"""One generation: its caller, its tokens, its text, from the request to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .base import (
    FinishReason,
    GenerationChunk,
    GenerationEnd,
    GenerationTimings,
    SamplingParameters,
    TokenLogprob,
    TokenLogprobs,
)
from .context import DecodeContext
from .errors import EngineError, InvalidParametersError
from .grammars import Grammar
from .log_probabilities import likeliest_tokens
from .sampling import TokenSampler
from .text_stream import TextStream
from .tokenisation import Tokeniser

GenerationEvent = GenerationChunk | GenerationEnd


class GenerationStream:
    """State of one generation; owned by the generating thread once it is submitted.

    Args:
        prompt: Tokens, fewer than `context_limit`.
        parameters: Validated.
        sampler: Freed by `free`.
        tokeniser: Of the same model.
        context_limit: Most tokens of prompt and text together.
        clock: Monotonic, seconds.
        chunk_seconds: Text is handed over at most this often, but for the first and the last.

    Attributes:
        cancelled: Nobody waits for it any more.
        events: Where the caller takes chunks and the end.
        sequence: Its id in the KV cache, -1 while it has none.
        tokens: The prompt and what was sampled after it.
        computed: How many of them the KV cache holds.
        shared: How many of them were computed for another stream.
        logprobs: Whether, and of how many of the likeliest tokens, log-probabilities are wanted.
        asking: The grammar that it waits for before it has its next token; None for none.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        parameters: SamplingParameters,
        sampler: TokenSampler,
        tokeniser: Tokeniser,
        context_limit: int,
        clock: Callable[[], float],
        chunk_seconds: float = 0.0,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.events: asyncio.Queue[list[GenerationEvent]] = asyncio.Queue()
        self.cancelled = False
        self.sequence = -1
        self.computed = 0
        self.shared = 0
        self.tokens = list(prompt)
        self._prompt_tokens = len(self.tokens)
        self._sampler = sampler
        self._tokeniser = tokeniser
        self._clock = clock
        self._most = min(parameters.max_tokens, context_limit - self._prompt_tokens)
        self._text = TextStream(parameters.stop)
        self._sampled = 0
        self._chunk_seconds = chunk_seconds
        self._unsent_text = ""
        self._unsent: list[int] = []
        self._unsent_logprobs: list[TokenLogprobs] = []
        self.logprobs = parameters.logprobs
        self.asking: Grammar | None = None
        self._held: tuple[NDArray[np.float32], float] | None = None
        self._sent: float | None = None
        self._submitted = clock()
        self._started: float | None = None
        self._first: float | None = None

    @property
    def completion_tokens(self) -> int:
        """Tokens sampled so far, without an end token."""
        return self._sampled

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return self._prompt_tokens

    @property
    def prefilling(self) -> bool:
        """Whether more than the token sampled last is still to be computed."""
        return self._sampled == 0 or len(self.tokens) - self.computed > 1

    def begin(self) -> None:
        """Note that the first token goes to the model now."""
        if self._started is None:
            self._started = self._clock()

    def sample(
        self,
        context: DecodeContext,
        index: int,
        logits: NDArray[np.float32],
        normaliser: float = 0.0,
    ) -> tuple[list[GenerationEvent], bool]:
        """Choose the next token.

        Args:
            context: Where the batch was decoded.
            index: The place in the batch of the stream's last token.
            logits: Shape (n_vocab,), of that token.
            normaliser: Log of the sum of their exponentials, where log-probabilities are wanted.

        Returns:
            What the caller gets, and whether it is the end. Neither where it is `asking`, until
            `resume`.
        """
        try:
            token = self._sampler.sample(context, index, logits)
        except EngineError as error:
            return self._fail(error), True
        if token is None:
            self.asking = self._sampler.grammar
            # The next batch overwrites them.
            self._held = logits.copy(), normaliser
            return [], False
        return self._take(token, logits, normaliser)

    def resume(self) -> tuple[list[GenerationEvent], bool]:
        """Go on with what the grammar has answered; gives what `sample` does."""
        if self._held is None:
            raise AssertionError("the stream waits for no grammar")
        try:
            token = self._sampler.resume()
        except EngineError as error:
            self.asking = None
            return self._fail(error), True
        if token is None:
            return [], False
        self.asking = None
        return self._take(token, *self._held)

    def _take(
        self, token: int, logits: NDArray[np.float32], normaliser: float
    ) -> tuple[list[GenerationEvent], bool]:
        if self._first is None:
            self._first = self._clock()
        if self._tokeniser.ends_generation(token):
            return self.end(FinishReason.STOP), True
        self._sampled += 1
        self.tokens.append(token)
        self._unsent.append(token)
        if self.logprobs is not None:
            self._unsent_logprobs.append(
                TokenLogprobs(
                    self._logprob(token, logits, normaliser),
                    tuple(
                        self._logprob(int(likely), logits, normaliser)
                        for likely in likeliest_tokens(logits, self.logprobs)
                    ),
                )
            )
        text = self._text.feed(self._tokeniser.piece(token))
        events = self._chunk(text)
        if self._text.stopped:
            return events + self.end(FinishReason.STOP), True
        if self._sampled >= self._most:
            return events + self.end(FinishReason.LENGTH), True
        return events, False

    def end(
        self, reason: FinishReason, message: str = "", refused: str = ""
    ) -> list[GenerationEvent]:
        """The last events: text that was held back, and the end."""
        now = self._clock()
        started = now if self._started is None else self._started
        first = now if self._first is None else self._first
        events = self._chunk(self._text.finish(), last=True)
        events.append(
            GenerationEnd(
                finish_reason=reason,
                prompt_tokens=self._prompt_tokens,
                completion_tokens=self._sampled,
                timings=GenerationTimings(
                    queued=started - self._submitted,
                    prefill=first - started,
                    decode=now - first,
                ),
                message=message,
                shared_tokens=min(self.shared, self._prompt_tokens),
                refused=refused,
            )
        )
        return events

    def deliver(self, events: list[GenerationEvent]) -> None:
        """Hand events over to the caller's event loop; from any thread."""
        if self.cancelled or not events:
            return
        try:
            self._loop.call_soon_threadsafe(self.events.put_nowait, events)
        except RuntimeError:
            # The caller's event loop is closed: nobody can wait for this any more.
            self.cancelled = True

    def free(self) -> None:
        """Free the sampler."""
        self._sampler.free()

    def _fail(self, error: EngineError) -> list[GenerationEvent]:
        refused = error.field if isinstance(error, InvalidParametersError) else ""
        return self.end(FinishReason.ERROR, str(error), refused)

    def _chunk(self, text: str, last: bool = False) -> list[GenerationEvent]:
        self._unsent_text += text
        if not self._unsent_text and not (last and self._unsent):
            return []
        now = self._clock()
        # On its way every message takes processor time from the next token.
        if not last and self._sent is not None and now - self._sent < self._chunk_seconds:
            return []
        self._sent = now
        text, self._unsent_text = self._unsent_text, ""
        tokens, self._unsent = tuple(self._unsent), []
        logprobs, self._unsent_logprobs = tuple(self._unsent_logprobs), []
        return [GenerationChunk(text, tokens, logprobs)]

    def _logprob(self, token: int, logits: NDArray[np.float32], normaliser: float) -> TokenLogprob:
        piece = self._tokeniser.piece(token)
        text = piece.decode("utf-8", errors="replace") or self._tokeniser.written(token)
        return TokenLogprob(token, piece, text, float(logits[token]) - normaliser)

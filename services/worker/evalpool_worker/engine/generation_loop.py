"""The thread that generates: one decode a step for all streams, which join and leave between steps.

A step computes the last token of every stream that has its prompt behind it, and fills the rest of
the batch with chunks of the prompts of those that don't, so that a long prompt holds nobody up for
longer than a chunk. A stream is let in when the KV cache has room for it and for everybody's next
tokens. Where the cache fills up all the same, the newest stream gives its cells back and waits;
what it has sampled stays, and is computed again together with its prompt. A stream that has become
longer than the cache gets a longer one, into which everything is computed again.

A stream whose grammar has been asked and has not answered sits steps out, and the others go on.

What a stream's prompt shares with another's, such as a system prompt, is computed once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from .base import FinishReason
from .context import DecodeContext, NoRoomError
from .errors import EngineError
from .generation_step import GenerationStep
from .generation_stream import GenerationEvent, GenerationStream
from .grammars import Grammar, answered
from .growing_context import GrowingContext
from .library import release_threads
from .log_probabilities import log_normalisers
from .long_contexts import LongContexts
from .model import LoadedModel
from .scoring_pool import ScoringPool
from .shape import GrowingShape
from .stream_prefixes import StreamPrefixes

_logger = logging.getLogger(__name__)

# Cells a stream that have to be free for a new stream to come in.
_HEADROOM = 32

# How long after a grammar was asked a step waits for its answer; most take a tenth of that.
_ANSWER_SECONDS = 0.001

# How long to wait where there is nothing else to do, before looking for streams to let in and out.
_LISTEN_SECONDS = 0.01

_UNLOADED = "The model was unloaded."


class GenerationLoop:
    """Generates for up to `shape.sequences` streams at once on one context.

    Args:
        model: Must outlive the loop.
        shapes: Of the context, which is made when the first stream comes.
        long_contexts: Where it comes from while a stream is longer than usual.
        scoring: What computes beside it on the same cores. While there are streams it is held to
            half of them: threads that wait for each other inside a step must not wait for a core.
    """

    def __init__(
        self,
        model: LoadedModel,
        shapes: GrowingShape,
        long_contexts: LongContexts,
        scoring: ScoringPool,
    ) -> None:
        self._shape = shapes.usual
        self._chunk = self._shape.chunk_tokens or self._shape.batch_tokens
        self._context = GrowingContext(model, shapes, long_contexts)
        self._scoring = scoring
        self._condition = threading.Condition()
        self._waiting: deque[GenerationStream] = deque()
        self._active: list[GenerationStream] = []
        self._asking: dict[Grammar, GenerationStream] = {}
        self._free_sequences = list(range(self._shape.sequences))
        self._prefixes = StreamPrefixes(self._shape) if model.shares_prefixes else None
        self._stopping = False
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._thread = threading.Thread(target=self._work, name="evalpool-generate", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Streams without a slot."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Streams in slots."""
        return len(self._active)

    @property
    def cells(self) -> int:
        """Tokens that the KV cache holds, or would."""
        return self._context.cells

    @property
    def used_cells(self) -> int:
        """Of them, what streams in slots have; what they share counts for each."""
        return sum(stream.computed for stream in tuple(self._active))

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens computed so far."""
        return self._prompt_tokens

    @property
    def completion_tokens(self) -> int:
        """Tokens sampled so far."""
        return self._completion_tokens

    def submit(self, stream: GenerationStream) -> None:
        """Queue a stream; the loop frees it in the end."""
        with self._condition:
            if not self._stopping:
                self._waiting.append(stream)
                self._condition.notify_all()
                return
        stream.deliver(stream.end(FinishReason.CANCELLED, _UNLOADED))
        stream.free()

    def cancel(self, stream: GenerationStream) -> None:
        """Give up a stream; its slot is free after the step that is being computed."""
        with self._condition:
            stream.cancelled = True
            self._condition.notify_all()

    def wait_idle(self) -> None:
        """Block until there is no stream."""
        with self._condition:
            self._condition.wait_for(lambda: not self._waiting and not self._active)

    def stop(self) -> None:
        """End after the step that is being computed, and free the context. Blocks."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join()

    # What follows runs in the generating thread.

    def _work(self) -> None:
        try:
            while self._next_step():
                try:
                    if self._asking:
                        self._hear(self._long_enough())
                        if len(self._asking) == len(self._active):
                            continue
                    context = self._long_enough()
                    others = self._scoring.busy_threads + len(self._asking)
                    context.limit_threads(max(1, self._shape.threads - others))
                    step = self._compute(context)
                    self._sample(context, step)
                except Exception as error:
                    if isinstance(error, EngineError):
                        _logger.error("Generating failed: %s", error)
                        message = str(error)
                    else:
                        _logger.exception("Generating failed.")
                        message = "The engine failed while it generated."
                    self._context.free()
                    self._fail(self._active, message)
        finally:
            self._context.free()

    def _long_enough(self) -> DecodeContext:
        """A context for the longest stream. One that has outgrown the last one was alone in it."""
        context, empty = self._context.holding(max(len(each.tokens) for each in self._active))
        if empty:
            for stream in self._active:
                stream.computed = 0
            if self._prefixes:
                self._prefixes.lose()
        return context

    def _next_step(self) -> bool:
        """Wait for work, let streams out and in; False when the loop stops."""
        while True:
            if not self._active:
                self._context.shrink()
                release_threads()
            with self._condition:
                if not self._active:
                    self._condition.notify_all()
                    self._scoring.share_cores(False)
                self._condition.wait_for(lambda: self._waiting or self._active or self._stopping)
                stopping = self._stopping
                if stopping:
                    ending = [*self._active, *self._waiting]
                    self._active.clear()
                    self._waiting.clear()
                    self._condition.notify_all()
                else:
                    ending = [stream for stream in self._waiting if stream.cancelled]
                    for stream in ending:
                        self._waiting.remove(stream)
                gone = [stream for stream in self._active if stream.cancelled]
            for stream in gone:
                self._leave(stream)
                stream.free()
            for stream in ending:
                stream.deliver(stream.end(FinishReason.CANCELLED, _UNLOADED))
                stream.free()
            if stopping:
                return False
            with self._condition:
                while self._waiting and self._has_room(self._waiting[0]):
                    self._enter(self._waiting.popleft())
                if self._active:
                    self._scoring.share_cores(True)
                    return True

    def _has_room(self, stream: GenerationStream) -> bool:
        if not self._active:
            return True
        if not self._free_sequences:
            return False
        streams = [*self._active, stream]
        return sum(len(each.tokens) + _HEADROOM for each in streams) <= self._context.cells

    def _enter(self, stream: GenerationStream) -> None:
        stream.sequence = self._free_sequences.pop()
        self._active.append(stream)

    def _leave(self, stream: GenerationStream) -> None:
        self._context.forget(stream.sequence)
        with self._condition:
            self._active.remove(stream)
        if stream.asking:
            del self._asking[stream.asking]
        self._free_sequences.append(stream.sequence)
        stream.sequence = -1
        stream.computed = 0

    def _stepping(self) -> list[GenerationStream]:
        """Streams that the next step computes something for."""
        if not self._asking:
            return self._active
        return [stream for stream in self._active if not stream.asking]

    def _make_room(self, context: DecodeContext) -> int:
        """Let the newest streams wait until each of the others can get a token; the room left."""
        while True:
            stepping = self._stepping()
            room = context.shape.cells - sum(stream.computed for stream in self._active)
            if self._prefixes:
                # What is kept makes no chunk smaller: in others a text may come out otherwise.
                if room - self._prefixes.kept_tokens < self._chunk:
                    self._prefixes.forget(context)
                room -= self._prefixes.kept_tokens
            # One stream alone always fits: the context is longer than every stream.
            if room >= len(stepping) or len(self._active) == 1:
                return room
            # One whose grammar is asked stays: begun again it would choose a second time.
            newest = stepping[-1]
            self._leave(newest)
            with self._condition:
                self._waiting.appendleft(newest)

    def _compute(self, context: DecodeContext) -> GenerationStep:
        """Decode a batch; where it finds no room, with fewer prompt tokens."""
        room = self._make_room(context)
        if all(stream.prefilling for stream in self._active):
            prefill = min(self._shape.batch_tokens, room)
        else:
            prefill = min(self._chunk, room)
        while True:
            step = self._plan(context, prefill)
            if not step.tokens:
                # Those whose grammars are asked hold all the room.
                return step
            context.fill(step.tokens, step.positions, step.sequences, step.wants_logits)
            try:
                context.decode()
            except NoRoomError:
                if self._prefixes and self._prefixes.kept_tokens:
                    self._prefixes.forget(context)
                    continue
                if step.prefilled == 0 or len(step.tokens) == 1:
                    raise
                prefill = len(step.tokens) - (step.prefilled + 1) // 2
                continue
            for stream, count in step.streams.items():
                stream.computed += count
            self._prompt_tokens += step.prefilled
            return step

    def _plan(self, context: DecodeContext, most: int) -> GenerationStep:
        """Lay out a batch of at most this many tokens, but for streams that need just one."""
        step = GenerationStep()
        stepping = self._stepping()
        for stream in stepping:
            if not stream.prefilling:
                step.add(stream, stream.tokens[-1:], wants_last=True)
        room = most - len(step.tokens)
        for stream in stepping:
            if room <= 0:
                break
            if stream.prefilling:
                if self._prefixes and not self._prefixes.lend(context, stream, self._active):
                    # Another is about to compute what this one begins with.
                    continue
                stream.begin()
                tokens = stream.tokens[stream.computed : stream.computed + min(room, self._chunk)]
                ends = stream.computed + len(tokens) == len(stream.tokens)
                step.add(stream, tokens, wants_last=ends)
                step.prefilled += len(tokens)
                room -= len(tokens)
        return step

    def _sample(self, context: DecodeContext, step: GenerationStep) -> None:
        if not step.outputs:
            return
        logits = context.logits(len(step.outputs))
        telling = [
            row for row, (stream, _) in enumerate(step.outputs) if stream.logprobs is not None
        ]
        normalisers: dict[int, float] = {}
        if telling:
            # All rows at once, and only those.
            normalisers = dict(zip(telling, log_normalisers(logits[telling]).tolist(), strict=True))
        for row, (stream, index) in enumerate(step.outputs):
            if stream.cancelled:
                continue
            before = stream.completion_tokens
            events, ended = stream.sample(context, index, logits[row], normalisers.get(row, 0.0))
            self._completion_tokens += stream.completion_tokens - before
            if stream.asking:
                self._asking[stream.asking] = stream
            else:
                self._deliver(context, stream, events, ended)

    def _hear(self, context: DecodeContext) -> None:
        """Go on with streams whose grammars answer; the others sit the next step out."""
        while self._asking:
            seconds = _LISTEN_SECONDS
            if len(self._asking) < len(self._active):
                last = max(grammar.asked for grammar in self._asking)
                seconds = max(0.0, last + _ANSWER_SECONDS - time.monotonic())
            told = answered(self._asking, seconds)
            if not told:
                return
            for grammar in told:
                stream = self._asking[grammar]
                before = stream.completion_tokens
                events, ended = stream.resume()
                self._completion_tokens += stream.completion_tokens - before
                if not stream.asking:
                    del self._asking[grammar]
                    self._deliver(context, stream, events, ended)

    def _deliver(
        self,
        context: DecodeContext,
        stream: GenerationStream,
        events: list[GenerationEvent],
        ended: bool,
    ) -> None:
        if ended:
            if self._prefixes:
                self._prefixes.keep(context, stream)
            self._leave(stream)
            stream.free()
        stream.deliver(events)

    def _fail(self, streams: Sequence[GenerationStream], message: str) -> None:
        """End streams that are in slots."""
        if self._prefixes:
            self._prefixes.lose()
        for stream in list(streams):
            self._leave(stream)
            stream.deliver(stream.end(FinishReason.ERROR, message))
            stream.free()

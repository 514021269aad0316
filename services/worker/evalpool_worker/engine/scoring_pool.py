"""The threads that score: each owns a context and takes packs from one queue of all callers.

A pack is filled with whole questions up to one batch. Where few questions are left, a thread
takes only its share of them, so that all threads finish at about the same time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .base import ChoiceQuestion, ChoiceScore, EngineError, QuestionFailure, QuestionResult
from .choice_tree import UnscorableError
from .context import ContextShape, DecodeContext, NoRoomError
from .model import LoadedModel
from .scoring import (
    PreparedQuestion,
    Scorer,
    ScoringCancelledError,
    prepare_question,
)
from .tokenisation import Tokeniser

_logger = logging.getLogger(__name__)

_UNLOADED = "The model was unloaded."

ScoringOutcome = QuestionResult | QuestionFailure


class ScoringCall:
    """One caller's questions and the results that it has not taken yet."""

    def __init__(self, questions: Sequence[ChoiceQuestion]) -> None:
        self._loop = asyncio.get_running_loop()
        self.pending = deque(_Entry(self, question) for question in questions)
        self.cancelled = False
        self.outcomes: asyncio.Queue[list[ScoringOutcome]] = asyncio.Queue()

    def deliver(self, outcomes: list[ScoringOutcome]) -> None:
        """Hand results over to the caller's event loop; from any thread."""
        if self.cancelled:
            return
        try:
            self._loop.call_soon_threadsafe(self.outcomes.put_nowait, outcomes)
        except RuntimeError:
            # The caller's event loop is closed: nobody can wait for this any more.
            self.cancelled = True


@dataclass(slots=True, eq=False)
class _Entry:
    call: ScoringCall
    question: ChoiceQuestion
    prepared: PreparedQuestion | None = None


@dataclass(slots=True)
class _Pack:
    entries: list[_Entry] = field(default_factory=list)
    nodes: int = 0
    outputs: int = 0
    choices: int = 0

    def accepts(self, question: PreparedQuestion, shape: ContextShape) -> bool:
        if not self.entries:
            return True
        return (
            question.fits_batch
            and self.nodes + question.nodes <= shape.batch_tokens
            and self.outputs + question.outputs <= shape.outputs
            and self.choices + question.choices <= shape.sequences
        )

    def add(self, entry: _Entry, question: PreparedQuestion) -> None:
        self.entries.append(entry)
        self.nodes += question.nodes
        self.outputs += question.outputs
        self.choices += question.choices

    @property
    def full(self) -> bool:
        first = self.entries[0].prepared if self.entries else None
        return first is not None and not first.fits_batch

    @property
    def wanted(self) -> bool:
        return any(not entry.call.cancelled for entry in self.entries)


class ScoringPool:
    """Scores for any number of callers on `contexts` contexts of one model.

    Args:
        model: Must outlive the pool.
        tokeniser: Of the same model.
        shape: Of every context.
        contexts: How many, each with a thread of its own. They are made when first needed.
        now: Wall clock, seconds since the epoch.
    """

    def __init__(
        self,
        model: LoadedModel,
        tokeniser: Tokeniser,
        shape: ContextShape,
        contexts: int,
        now: Callable[[], float],
    ) -> None:
        self._model = model
        self._tokeniser = tokeniser
        self._shape = shape
        self._now = now
        self._condition = threading.Condition()
        # Callers with pending questions; the next pack begins with the first of them.
        self._calls: deque[ScoringCall] = deque()
        self._stopping = False
        self._running = 0
        self._computed_tokens = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"evalpool-score-{number}", daemon=True)
            for number in range(contexts)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Questions that no pack has taken."""
        with self._condition:
            return self._waiting()

    @property
    def running(self) -> int:
        """Questions in packs."""
        return self._running

    @property
    def computed_tokens(self) -> int:
        """Tokens computed so far."""
        return self._computed_tokens

    def submit(self, call: ScoringCall) -> None:
        """Queue a caller's questions."""
        with self._condition:
            if self._stopping:
                self._fail_pending(call)
                return
            if call.pending:
                self._calls.append(call)
                self._condition.notify_all()

    def cancel(self, call: ScoringCall) -> None:
        """Forget what the caller still waits for. What is being computed ends with its batch."""
        with self._condition:
            call.cancelled = True
            call.pending.clear()
            if call in self._calls:
                self._calls.remove(call)

    def stop(self) -> None:
        """End all threads after the batches that they compute, and free their contexts.

        Blocks. Questions without a result fail as retriable.
        """
        with self._condition:
            self._stopping = True
            for call in self._calls:
                self._fail_pending(call)
            self._calls.clear()
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()

    def _fail_pending(self, call: ScoringCall) -> None:
        call.deliver(
            [
                QuestionFailure(entry.question.id, _UNLOADED, retriable=True)
                for entry in call.pending
            ]
        )
        call.pending.clear()

    def _waiting(self) -> int:
        return sum(len(call.pending) for call in self._calls)

    # What follows runs in the scoring threads.

    def _work(self) -> None:
        context: DecodeContext | None = None
        try:
            while (pack := self._take_pack()) is not None:
                try:
                    if context is None:
                        context = DecodeContext(self._model, self._shape)
                    self._score_pack(context, pack)
                except ScoringCancelledError:
                    # Reaches a caller only where the pool stops.
                    self._fail_pack(pack, _UNLOADED)
                except EngineError as error:
                    # The question at fault is not known, so the whole pack fails, and only it.
                    _logger.error("Scoring a batch failed: %s", error)
                    self._fail_pack(pack, str(error))
                    if context is not None and not isinstance(error, NoRoomError):
                        context.free()
                        context = None
                except Exception:
                    _logger.exception("Scoring a batch failed.")
                    self._fail_pack(pack, "The engine failed while it scored a batch.")
                    if context is not None:
                        context.free()
                        context = None
                finally:
                    with self._condition:
                        self._running -= len(pack.entries)
        finally:
            if context is not None:
                context.free()

    def _take_pack(self) -> _Pack | None:
        """Wait for questions and fill a pack; None when the pool stops."""
        pack = _Pack()
        share: int | None = None
        while not pack.full:
            with self._condition:
                while not self._calls and not self._stopping and not pack.entries:
                    self._condition.wait()
                if self._stopping:
                    self._running -= len(pack.entries)
                    self._fail_pack(pack, _UNLOADED)
                    return None
                if not self._calls:
                    break
                if share is None:
                    share = max(1, math.ceil(self._waiting() / len(self._threads)))
                if len(pack.entries) >= share:
                    break
                entry = self._pop_next()
                self._running += 1
            prepared = self._prepare(entry)
            if prepared is None:
                with self._condition:
                    self._running -= 1
                continue
            if pack.accepts(prepared, self._shape):
                pack.add(entry, prepared)
                continue
            self._put_back(entry)
            break
        return pack

    def _pop_next(self) -> _Entry:
        """Take the next question; callers take turns. Under the lock."""
        call = self._calls.popleft()
        entry = call.pending.popleft()
        if call.pending:
            self._calls.append(call)
        return entry

    def _put_back(self, entry: _Entry) -> None:
        with self._condition:
            self._running -= 1
            call = entry.call
            if call.cancelled:
                return
            call.pending.appendleft(entry)
            if self._stopping:
                self._fail_pending(call)
                return
            if call in self._calls:
                self._calls.remove(call)
            self._calls.appendleft(call)
            self._condition.notify()

    def _prepare(self, entry: _Entry) -> PreparedQuestion | None:
        if entry.prepared is None:
            try:
                entry.prepared = prepare_question(
                    entry.question, self._tokeniser, self._shape, self._model.shares_prefixes
                )
            except UnscorableError as error:
                failure = QuestionFailure(entry.question.id, str(error), retriable=False)
                entry.call.deliver([failure])
        return entry.prepared

    def _score_pack(self, context: DecodeContext, pack: _Pack) -> None:
        prepared = [entry.prepared for entry in pack.entries if entry.prepared is not None]
        started = self._now()
        scores = Scorer(context).score(prepared, lambda: pack.wanted and not self._stopping)
        finished = self._now()
        with self._condition:
            self._computed_tokens += pack.nodes
        outcomes: dict[ScoringCall, list[ScoringOutcome]] = {}
        for entry, question, choices in zip(pack.entries, prepared, scores, strict=True):
            outcomes.setdefault(entry.call, []).append(
                _outcome(entry.question, question, choices, started, finished)
            )
        for call, results in outcomes.items():
            call.deliver(results)

    def _fail_pack(self, pack: _Pack, reason: str) -> None:
        for entry in pack.entries:
            entry.call.deliver([QuestionFailure(entry.question.id, reason, retriable=True)])


def _outcome(
    question: ChoiceQuestion,
    prepared: PreparedQuestion,
    scores: tuple[ChoiceScore, ...],
    started: float,
    finished: float,
) -> ScoringOutcome:
    for number, score in enumerate(scores, start=1):
        if not math.isfinite(score.sum_logprob):
            return QuestionFailure(
                question.id,
                f"The model's log-probability of choice {number} is not a finite number.",
                retriable=False,
            )
    return QuestionResult(
        id=question.id,
        scores=scores,
        prompt_tokens=prepared.prompt_tokens,
        computed_tokens=prepared.nodes,
        started_at=started,
        finished_at=finished,
    )

"""The threads that score: each owns a context and takes packs from one queue of all callers.

A pack is filled with whole questions of one call, up to one batch. Where the rest of a call is
less than a batch for every thread, it is cut into equal shares, so that all finish at about the
same time.

In another batch a question's sums differ a little: attention adds over the cells in another order,
and llama.cpp rounds activations to 8 bits, which makes small differences large. How a call is cut
into packs therefore depends on nothing but the call: the same questions in the same order score
the same, to the last bit, whatever else the engine does and whichever thread is faster.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .base import ChoiceQuestion, ChoiceScore, FailureCause, QuestionFailure, QuestionResult
from .choice_tree import QuestionTooLongError, UnscorableError
from .context import ContextShape, DecodeContext, NoRoomError
from .errors import EngineError, TooLittleMemoryError
from .library import release_threads
from .long_contexts import LongContexts
from .model import LoadedModel
from .scoring import PreparedQuestion, Scorer, ScoringCancelledError, prepare_question
from .shape import GrowingShape
from .shared_prefix import shared_prefix
from .tokenisation import Tokeniser

_logger = logging.getLogger(__name__)

_UNLOADED = "The model was unloaded."

ScoringOutcome = QuestionResult | QuestionFailure


class ScoringCall:
    """One caller's questions and the results that it has not taken yet."""

    def __init__(self, questions: Sequence[ChoiceQuestion]) -> None:
        self._loop = asyncio.get_running_loop()
        self.questions = questions
        self.pending = deque(_Entry(question) for question in questions)
        # What the prompts begin with, once it is known.
        self.prefix: tuple[int, ...] | None = None
        # Most questions of a pack, once the rest is to be shared out.
        self.share: int | None = None
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
    question: ChoiceQuestion
    prepared: PreparedQuestion | None = None


@dataclass(slots=True)
class _Pack:
    call: ScoringCall
    questions: list[ChoiceQuestion] = field(default_factory=list)
    prepared: list[PreparedQuestion] = field(default_factory=list)
    nodes: int = 0
    outputs: int = 0
    choices: int = 0

    @property
    def shape(self) -> ContextShape:
        return self.prepared[0].shape

    def accepts(self, question: PreparedQuestion) -> bool:
        if not self.prepared:
            return True
        shape = self.shape
        return (
            question.fits_batch
            and question.shape == shape
            and question.prefix == self.prepared[0].prefix
            and self.nodes + question.nodes <= shape.batch_tokens
            and self.outputs + question.outputs <= shape.outputs
            and self.choices + question.choices <= shape.sequences
        )

    def add(self, question: ChoiceQuestion, prepared: PreparedQuestion) -> None:
        self.questions.append(question)
        self.prepared.append(prepared)
        self.nodes += prepared.nodes
        self.outputs += prepared.outputs
        self.choices += prepared.choices

    @property
    def full(self) -> bool:
        return bool(self.prepared) and not self.prepared[0].fits_batch

    def fail(self, reason: str, cause: FailureCause = FailureCause.ENGINE) -> None:
        self.call.deliver(
            [QuestionFailure(question.id, reason, cause) for question in self.questions]
        )


class ScoringPool:
    """Scores for any number of callers on `contexts` contexts of one model.

    Args:
        model: Must outlive the pool.
        tokeniser: Of the same model.
        shapes: Of the contexts.
        contexts: How many, each with a thread of its own. They are made when first needed.
        long_contexts: Where questions get theirs that are longer than usual.
        now: Wall clock, seconds since the epoch.
    """

    def __init__(
        self,
        model: LoadedModel,
        tokeniser: Tokeniser,
        shapes: GrowingShape,
        contexts: int,
        long_contexts: LongContexts,
        now: Callable[[], float],
    ) -> None:
        self._model = model
        self._tokeniser = tokeniser
        self._shapes = shapes
        self._long_contexts = long_contexts
        self._now = now
        self._condition = threading.Condition()
        self._packing = threading.Lock()
        # Callers with pending questions; the next pack begins with the first of them.
        self._calls: deque[ScoringCall] = deque()
        self._stopping = False
        self._running = 0
        self._packs = 0
        self._most_packs = contexts
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

    @property
    def busy_threads(self) -> int:
        """Threads that compute at this moment."""
        return self._packs * self._shapes.usual.threads

    def share_cores(self, shared: bool) -> None:
        """Leave half of the contexts' cores to others, or take them back, from the next packs."""
        most = len(self._threads)
        if shared:
            most = max(1, most // 2)
        with self._condition:
            if most != self._most_packs:
                self._most_packs = most
                self._condition.notify_all()

    def wait_idle(self) -> None:
        """Block until nothing is queued or computed."""
        with self._condition:
            self._condition.wait_for(lambda: not self._calls and self._running == 0)

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
            self._condition.notify_all()

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
        self._long_contexts.stop_waiting()
        for thread in self._threads:
            thread.join()

    def _fail_pending(self, call: ScoringCall) -> None:
        call.deliver(
            [
                QuestionFailure(entry.question.id, _UNLOADED, FailureCause.UNLOADED)
                for entry in call.pending
            ]
        )
        call.pending.clear()

    def _waiting(self) -> int:
        return sum(len(call.pending) for call in self._calls)

    # What follows runs in the scoring threads.

    def _work(self) -> None:
        usual: Scorer | None = None
        try:
            while (pack := self._take_pack()) is not None:
                try:
                    if pack.shape == self._shapes.usual:
                        usual = usual or Scorer(DecodeContext(self._model, pack.shape), self._count)
                        self._score_pack(usual, pack)
                    else:
                        with self._long_contexts.one(pack.shape) as long_context:
                            self._score_pack(Scorer(long_context, self._count), pack)
                except ScoringCancelledError:
                    # Reaches a caller only where the pool stops.
                    pack.fail(_UNLOADED, FailureCause.UNLOADED)
                except TooLittleMemoryError as error:
                    _logger.warning("A question is too long for this machine: %s", error)
                    pack.fail(str(error))
                except EngineError as error:
                    # The question at fault is not known, so the whole pack fails, and only it.
                    _logger.error("Scoring a batch failed: %s", error)
                    pack.fail(str(error))
                    if usual is not None and not isinstance(error, NoRoomError):
                        usual.free()
                        usual = None
                except Exception:
                    _logger.exception("Scoring a batch failed.")
                    pack.fail("The engine failed while it scored a batch.")
                    if usual is not None:
                        usual.free()
                        usual = None
                finally:
                    with self._condition:
                        self._running -= len(pack.questions)
                        self._packs -= 1
                        idle = not self._calls
                        self._condition.notify_all()
                    if idle:
                        release_threads()
        finally:
            if usual is not None:
                usual.free()

    def _take_pack(self) -> _Pack | None:
        """Wait for questions and fill a pack; None when the pool stops."""
        # One thread at a time, so that packs follow from the order of the questions alone.
        with self._packing:
            while True:
                with self._condition:
                    self._condition.wait_for(self._may_take)
                    if self._stopping:
                        return None
                    call = self._calls[0]
                    share = call.share or math.ceil(len(call.pending) / len(self._threads))
                pack = self._fill_pack(call, share)
                if len(pack.questions) == share:
                    # Sharing the rest out again and again would end in many small packs.
                    call.share = share
                with self._condition:
                    # Callers take turns, a pack each.
                    if call in self._calls:
                        self._calls.remove(call)
                        if call.pending:
                            self._calls.append(call)
                    if pack.questions:
                        self._packs += 1
                        return pack
                    # All of it was refused or cancelled.
                    self._condition.notify_all()

    def _may_take(self) -> bool:
        return self._stopping or (bool(self._calls) and self._packs < self._most_packs)

    def _fill_pack(self, call: ScoringCall, share: int) -> _Pack:
        pack = _Pack(call)
        while len(pack.questions) < share and not pack.full:
            with self._condition:
                if not call.pending:
                    break
                entry = call.pending[0]
            # Without the lock: a long text takes a while to tokenise.
            refusal = self._prepare(call, entry)
            with self._condition:
                if not call.pending or call.pending[0] is not entry:
                    # Cancelled or stopped meanwhile.
                    break
                if entry.prepared is not None:
                    if not pack.accepts(entry.prepared):
                        break
                    pack.add(entry.question, entry.prepared)
                    self._running += 1
                call.pending.popleft()
            if refusal is not None:
                call.deliver([refusal])
        return pack

    def _prepare(self, call: ScoringCall, entry: _Entry) -> QuestionFailure | None:
        """Lay the question out, or say why it can't be scored."""
        if entry.prepared is not None:
            return None
        question = entry.question
        try:
            if call.prefix is None:
                call.prefix = ()
                call.prefix = shared_prefix(call.questions, self._tokeniser)
            entry.prepared = prepare_question(
                question, self._tokeniser, self._shapes, self._model.shares_prefixes, call.prefix
            )
        except QuestionTooLongError as error:
            return QuestionFailure(question.id, str(error), FailureCause.CONTEXT)
        except UnscorableError as error:
            return QuestionFailure(question.id, str(error), FailureCause.QUESTION)
        except Exception:
            _logger.exception("A question can't be laid out.")
            reason = "The engine failed while it laid the question out."
            return QuestionFailure(question.id, reason, FailureCause.ENGINE)
        return None

    def _score_pack(self, scorer: Scorer, pack: _Pack) -> None:
        started = self._now()
        scores = scorer.score(pack.prepared, lambda: not pack.call.cancelled and not self._stopping)
        finished = self._now()
        pack.call.deliver(
            [
                _outcome(question, prepared, choices, started, finished)
                for question, prepared, choices in zip(
                    pack.questions, pack.prepared, scores, strict=True
                )
            ]
        )

    def _count(self, tokens: int) -> None:
        # By the batch: a long question must not look as if nothing got on.
        with self._condition:
            self._computed_tokens += tokens


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
                FailureCause.QUESTION,
            )
    return QuestionResult(
        id=question.id,
        scores=scores,
        prompt_tokens=prepared.prompt_tokens,
        computed_tokens=prepared.nodes,
        started_at=started,
        finished_at=finished,
    )

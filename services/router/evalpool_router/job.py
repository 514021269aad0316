"""A caller's request while the herd works on it, and what comes back to the caller."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

from evalpool.inference.v1 import inference_pb2
from evalpool_router.scheduler import Kind
from evalpool_runtime.errors import DomainError, reason_name, reasons

MOST_TOKENS = 2_000_000
"""Tokens that an answer may be said to have taken: those of 1,000 still add up in 32 bits."""

NO_WORKER = reason_name(reasons.ERROR_REASON_NO_WORKER)

Message: TypeAlias = inference_pb2.InferResponse | inference_pb2.ScoreChoicesResponse


@dataclass(frozen=True, slots=True)
class Ended:
    """The last thing that a caller is told: that all is done, or the error."""

    error: DomainError | None


@dataclass(slots=True, eq=False)
class Job:
    """A caller's request.

    Attributes:
        id: The router's number for it.
        method: The RPC, for metrics.
        kind: The work that it is.
        reference: What the caller gets back in every message.
        model: The model, with its sources.
        deadline: When it is given up, in the clock's monotonic seconds.
        begun: When it came.
        multiplier: What the caller offered to go first.
        first_dispatch: When it, or its first package, was sent out.
        first_result: When the first of the answer came.
        inbox: What the caller is to be told, in order.
    """

    id: int
    method: str
    kind: Kind
    reference: str
    model: inference_pb2.ModelReference
    deadline: float
    begun: float
    multiplier: Fraction = Fraction(1)
    first_dispatch: float | None = None
    first_result: float | None = None
    inbox: asyncio.Queue[Message | Ended] = field(default_factory=asyncio.Queue)


@dataclass(slots=True, eq=False)
class InferJob(Job):
    """A prompt or a conversation to go on with.

    Attributes:
        request: What the caller asked.
    """

    request: inference_pb2.InferRequest = field(default_factory=inference_pb2.InferRequest)

    def message(self) -> inference_pb2.InferRequest:
        """What the worker is sent."""
        message = inference_pb2.InferRequest()
        message.CopyFrom(self.request)
        message.model.CopyFrom(self.model)
        message.reference = self.reference
        # Money is between the caller and the router.
        message.ClearField("hold")
        message.ClearField("multiplier")
        return message

    def standstill(self, stage: str) -> inference_pb2.InferResponse:
        """What the caller is told while no worker can take it."""
        return inference_pb2.InferResponse(
            reference=self.reference,
            progress=inference_pb2.InferProgress(stage=stage, reason_code=NO_WORKER),
        )


@dataclass(slots=True, eq=False)
class ScoreJob(Job):
    """Questions to score.

    Attributes:
        questions: The questions, in the caller's order.
        scored: How many have been scored.
        failed: How many could not be.
        usage: What they took together.
    """

    questions: tuple[inference_pb2.ChoiceQuestion, ...] = ()
    scored: int = 0
    failed: int = 0
    usage: inference_pb2.Usage = field(default_factory=inference_pb2.Usage)

    def message(self, package: tuple[int, ...]) -> inference_pb2.ScoreChoicesRequest:
        """What the worker is sent for a package."""
        return inference_pb2.ScoreChoicesRequest(
            model=self.model,
            questions=[self.questions[index] for index in package],
            reference=self.reference,
        )

    def answers(self, index: int, result: inference_pb2.QuestionResult) -> bool:
        """Whether a result has the form of an answer to a question."""
        if not is_plausible(result.usage):
            return False
        if result.HasField("failure"):
            return True
        return len(result.scores) == len(self.questions[index].choices) and all(
            math.isfinite(score.sum_logprob) for score in result.scores
        )

    def count(self, result: inference_pb2.QuestionResult) -> None:
        """Count a result in the totals that end the answer."""
        if result.HasField("failure"):
            self.failed += 1
        else:
            self.scored += 1
        add_usage(self.usage, result.usage)

    def progress(
        self, position: int, stage: str, *, lacking: bool
    ) -> inference_pb2.ScoreChoicesResponse:
        """How the questions stand.

        Args:
            position: Questions before them in the queue.
            stage: What they are at.
            lacking: Whether no worker can take them.
        """
        return inference_pb2.ScoreChoicesResponse(
            reference=self.reference,
            progress=inference_pb2.ScoreProgress(
                queue_position=position, stage=stage, reason_code=NO_WORKER if lacking else ""
            ),
        )

    def completion(self) -> inference_pb2.ScoreChoicesResponse:
        """The answer's last message."""
        return inference_pb2.ScoreChoicesResponse(
            reference=self.reference,
            complete=inference_pb2.ScoreComplete(
                scored=self.scored, failed=self.failed, usage=self.usage
            ),
        )


def indices_of(job: ScoreJob, package: tuple[int, ...]) -> Mapping[str, int]:
    """The package's questions by their ids."""
    return {job.questions[index].id: index for index in package}


def is_plausible(usage: inference_pb2.Usage) -> bool:
    """Whether counts can be those of one answer; sums of others would not fit their fields."""
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.computed_tokens)
    return all(0 <= count <= MOST_TOKENS for count in counts)


def add_usage(total: inference_pb2.Usage, more: inference_pb2.Usage) -> None:
    """Add the counts of one usage to another; spans overlap, so they are not added."""
    total.prompt_tokens += more.prompt_tokens
    total.completion_tokens += more.completion_tokens
    total.computed_tokens += more.computed_tokens

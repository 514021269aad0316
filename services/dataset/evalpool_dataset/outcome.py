"""What is asked of the herd together, and what becomes of each question. Values only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from evalpool_dataset.inquiry import Asked
from evalpool_dataset.parts import Evaluator
from evalpool_dataset.run import Run
from evalpool_dataset.store.evaluations import Answer, Claim


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has taken up questions."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """A question has an answer.

    Attributes:
        id: The evaluation's number.
        prediction: From 1; 0 for none.
        answer: What the inference gave.
        provenance: What it came from.
        alike: All choices scored exactly alike.
        compared: The choices differ.
    """

    id: int
    prediction: int
    answer: Answer
    provenance: dict[str, Any]
    alike: bool = False
    compared: bool = False


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A question has no answer.

    Attributes:
        id: The evaluation's number.
        reason: One sentence.
        reason_code: The name of an ErrorReason without its prefix.
        retryable: Another attempt may succeed.
    """

    id: int
    reason: str
    reason_code: str
    retryable: bool


Outcome = Started | Answered | Unanswered


class UnforeseenAnswer(Exception):
    """The herd answered what it was not asked, so that nothing more of the call can be trusted."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Leased questions of one run, ready to be asked.

    Attributes:
        run: The run, as it was when they were leased.
        evaluator: How they are answered.
        model_digest: The subject.
        claims: The leases, by the evaluation's number.
        asked: What is asked, by the evaluation's number.
        reference: Names the chunk to the herd.
    """

    run: Run
    evaluator: Evaluator
    model_digest: str
    claims: dict[int, Claim]
    asked: dict[int, Asked]
    reference: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a call to the herd ended early.

    Attributes:
        reason: One sentence.
        reason_code: The name of an ErrorReason without its prefix; empty for none.
        retryable: The same call may succeed later.
        pause: Seconds after which another call makes sense.
    """

    reason: str
    reason_code: str = ""
    retryable: bool = True
    pause: float = 0.0


class Inference(Protocol):
    """Asks the herd."""

    def evaluate(
        self, evaluator: Evaluator, model_digest: str, asked: dict[int, Asked], reference: str
    ) -> AsyncIterator[Outcome]:
        """Yield what becomes of each question, by the evaluation's number."""
        ...

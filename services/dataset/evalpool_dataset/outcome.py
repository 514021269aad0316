"""What is asked of the herd together, and what becomes of each question. Values only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from evalpool_dataset.inquiry import Asked
from evalpool_dataset.parts import Evaluator
from evalpool_dataset.problem import Problem
from evalpool_dataset.run import Run


@dataclass(frozen=True, slots=True)
class Claim:
    """A question that is leased.

    Attributes:
        id: The evaluation's number.
        fence: The claim's.
        question_row: The number of the question's row.
        ordinal: The question's place in its version.
    """

    id: int
    fence: int
    question_row: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What an inference gave, to be kept with the evaluation.

    Attributes:
        prompt: As the model got it.
        sum_logprobs: Each choice's Σ log p, in the question's order, under `loglikelihood`.
        predictions: The predictions by metric, under `loglikelihood`.
        reply: The model's reply, where it writes one.
        extracted: What filters took from the reply, by their names, under `exact_match`.
        judging: What graded the reply, under `judge`.
        start_time: When the worker began.
        end_time: When it was done.
        reference: The reference of the request to the herd.
        worker: The worker's address.
        engine_build: The engine that answered.
    """

    prompt: str
    sum_logprobs: tuple[float, ...] | None
    predictions: dict[str, int] | None
    reply: str | None
    extracted: dict[str, str] | None
    judging: dict[str, Any] | None
    start_time: datetime
    end_time: datetime
    reference: str
    worker: str
    engine_build: str


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
        points: The points that it is given.
        right: Whether it is right, by metric.
        answer: What the inference gave.
        provenance: What it came from.
        alike: All choices scored exactly alike.
        compared: The choices differ.
    """

    id: int
    prediction: int
    points: int
    right: Mapping[str, bool]
    answer: Answer
    provenance: dict[str, Any]
    alike: bool = False
    compared: bool = False


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A question has no answer.

    Attributes:
        id: The evaluation's number.
        problem: Why; it is this question's alone.
    """

    id: int
    problem: Problem


@dataclass(frozen=True, slots=True)
class Waiting:
    """The call stays open, and its questions wait for the herd.

    Attributes:
        problem: What they wait for; None where that is over.
    """

    problem: Problem | None


Outcome = Started | Answered | Unanswered | Waiting


@dataclass(frozen=True, slots=True)
class Chunk:
    """Leased questions of one run, ready to be asked.

    Attributes:
        run: The run, as it was when they were leased.
        evaluator: How they are answered.
        subject: The digest of the model or document set.
        claims: The leases, by the evaluation's number.
        asked: What is asked, by the evaluation's number.
        reference: Names the chunk to the herd.
    """

    run: Run
    evaluator: Evaluator
    subject: str
    claims: dict[int, Claim]
    asked: dict[int, Asked]
    reference: str


class Inference(Protocol):
    """Asks the herd."""

    def evaluate(
        self, evaluator: Evaluator, subject: str, asked: dict[int, Asked], reference: str
    ) -> AsyncIterator[Outcome]:
        """Yield what becomes of each question, by the evaluation's number.

        Raises:
            CallEnded: The herd ended the call before every question had its outcome.
        """
        ...

"""Runs: one subject on one version with one evaluator, and how it stands. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from evalpool.transfer_ids import derived_id
from evalpool_dataset.digest import JsonValue, canonical_json
from evalpool_dataset.scoring import Standing, UnusableScores, refuse_alike
from evalpool_runtime.errors import reason_name, reasons


class RunState(StrEnum):
    """A run's status."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    UNFUNDED = "unfunded"


OPEN = frozenset({RunState.QUEUED, RunState.RUNNING})
"""The states in which questions are taken up."""

RETRIED = frozenset({RunState.FAILED, RunState.UNFUNDED})
"""The states in which starting the run again opens questions again."""

ENDED = frozenset({RunState.COMPLETE, RunState.FAILED})
"""The states in which nothing more is counted."""


COMPARISONS = frozenset({"alike", "compared"})
"""The names under which `metric_counts` has what is no metric."""

_DEGENERATE = reason_name(reasons.ERROR_REASON_DEGENERATE_SCORES)


@dataclass(frozen=True, slots=True)
class Run:
    """A run and its counts.

    Attributes:
        id: 43 characters, derived from what is run.
        number: Its place in the order of making.
        version: The version's number.
        model: The model's number.
        evaluator: The name of an evaluator.
        parameters: What the evaluator says of itself.
        state: Its status.
        reason: Why it failed or waits, in one sentence.
        reason_code: The name of an ErrorReason without its prefix.
        full_marks: The points that one question can give.
        correct: Questions that were given full marks.
        points: The points that were given.
        done: Questions done.
        failed: Questions that failed for good.
        total: Questions in all.
        metric_counts: Right answers by metric; under "alike" the questions whose choices all scored
            alike.
        provenance: What the first answer came from.
        cursor: Grows with every change of any run.
    """

    id: str
    number: int
    version: int
    model: int
    evaluator: str
    parameters: Mapping[str, JsonValue]
    state: RunState
    total: int
    cursor: int
    create_time: datetime
    full_marks: int = 1
    reason: str = ""
    reason_code: str = ""
    correct: int = 0
    points: int = 0
    done: int = 0
    failed: int = 0
    metric_counts: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None

    @property
    def standing(self) -> Standing:
        """The counts that a score is made of."""
        return Standing(self.points, self.full_marks, self.done, self.total)

    @property
    def says_nothing(self) -> bool:
        """It failed because its scores are all alike, so that none of them counts."""
        return self.reason_code == _DEGENERATE


def reopened(run: Run) -> Run:
    """A failed or unfunded run whose failed questions are open again.

    What is done stays done, but where the scores said nothing all of them are asked again.
    """
    if run.says_nothing:
        run = replace(
            run,
            correct=0,
            points=0,
            done=0,
            metric_counts={},
            provenance=None,
            start_time=None,
        )
    return replace(
        run,
        state=RunState.RUNNING if run.done else RunState.QUEUED,
        reason="",
        reason_code="",
        failed=0,
        end_time=None,
    )


def run_id(version_digest: str, subject: str, evaluator: Mapping[str, JsonValue]) -> str:
    """The id of a run, the same for the same work: 43 characters of base64url of a SHA-256.

    Args:
        version_digest: The version.
        subject: The digest of what is run.
        evaluator: What the evaluator says of itself, with all that bears on the result.
    """
    return derived_id(canonical_json(["evalpool-run", version_digest, subject, evaluator]))


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run ends."""

    state: RunState
    reason: str = ""
    reason_code: str = ""


def verdict(run: Run, first_failure: str, cause: str = "") -> Verdict | None:
    """How a run ends, once every question is done or has failed; None before, and for ended ones.

    Args:
        run: The run, with its newest counts.
        first_failure: The reason of its first failed question, where there is one.
        cause: The reason code of failed questions, where it says more than that they failed.
    """
    if run.state in ENDED or run.done + run.failed < run.total:
        return None
    if run.failed:
        return Verdict(
            RunState.FAILED,
            f"{run.failed} of {run.total} questions could not be evaluated; the first because: "
            f"{first_failure}",
            cause or reason_name(reasons.ERROR_REASON_EVALUATION_FAILED),
        )
    if run.evaluator == "loglikelihood":
        try:
            refuse_alike(run.metric_counts.get("alike", 0), run.metric_counts.get("compared", 0))
        except UnusableScores as error:
            return Verdict(RunState.FAILED, str(error), _DEGENERATE)
    return Verdict(RunState.COMPLETE)

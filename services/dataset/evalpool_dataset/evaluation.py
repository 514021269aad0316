"""The life of an evaluation: one question in one run.

    pending ──claim──▶ leased ──complete──▶ done
       ▲                 │ fail, expire, release
       ├─────────────────┤
       │                 └──(for good, or no try left)──▶ failed
       └────────────────────────retry─────────────────────┘

Every claim has a number, its fence. What holds a claim names the fence with everything it says, and
is heard only while the evaluation is leased under it; so each evaluation takes one result, once,
whoever was thought dead and was not.

An attempt counts only once a worker has started on it. Waiting in a queue, finding no worker or
being sent away by a busy one costs nothing, however often: the claim is released. A claim that
fails before a worker started costs no attempt, but is a failed start, and those are bounded too, so
that nothing goes round for ever. A failure of the machinery is never a wrong answer: the evaluation
is tried again after a pause, and after the last attempt or failed start it is failed with its
reason, and not counted, until somebody retries it.

All functions are pure: they take an evaluation and give a new one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum


class State(StrEnum):
    """An evaluation's status."""

    PENDING = "pending"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"


class NotHeld(Exception):
    """The claim that speaks is not, or is no longer, the one that holds the evaluation."""


class NotPossible(Exception):
    """The evaluation's state does not allow this."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How often an evaluation is tried, and after which pauses.

    Attributes:
        attempts: Attempts that a worker started, at most.
        failed_starts: Claims that fail before a worker has started, at most. With the pauses below,
            20 take about an hour.
        first_pause: After the first failure; it doubles with each further one.
        longest_pause: At most.
    """

    attempts: int = 3
    failed_starts: int = 20
    first_pause: timedelta = timedelta(seconds=1)
    longest_pause: timedelta = timedelta(minutes=5)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; give at least 1")
        if self.failed_starts < 1:
            raise ValueError(f"failed_starts is {self.failed_starts}; give at least 1")

    def pause(self, failures: int) -> timedelta:
        """The pause after so many failures in a row, at least one."""
        # Beyond 2^32 every pause is the longest; the bound keeps the power small.
        return min(self.longest_pause, self.first_pause * (1 << min(failures - 1, 32)))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One question in one run.

    Attributes:
        state: Its status.
        fence: The number of the newest claim; 0 before the first. It only grows.
        attempts: Claims that a worker started on, since the last retry.
        failures: Claims that failed, started or not, since the last retry; sets the pause.
        not_before: No claim before this time; None for no pause. Only while pending.
        holder: Who holds the claim. Only while leased.
        until: When the lease lapses. Only while leased.
        started: A worker has started on this claim. Only while leased.
        prediction: The choice predicted, from 1; 0 for none. Only when done.
        points: The points that it was given. Only when done.
        reason: Why the newest claim ended without a result, in one sentence.
    """

    state: State = State.PENDING
    fence: int = 0
    attempts: int = 0
    failures: int = 0
    not_before: datetime | None = None
    holder: str | None = None
    until: datetime | None = None
    started: bool = False
    prediction: int | None = None
    points: int | None = None
    reason: str | None = None

    @property
    def failed_starts(self) -> int:
        """Claims that failed before a worker had started, since the last retry. Not when done."""
        # The attempt under way has not failed.
        return self.failures - (self.attempts - self.started)

    def can_be_claimed(self, now: datetime) -> bool:
        """Pending, and its pause is over."""
        return self.state is State.PENDING and (self.not_before is None or self.not_before <= now)

    def is_held_by(self, fence: int) -> bool:
        """Leased under this claim. A lease that has lapsed and was not taken back still holds."""
        return self.state is State.LEASED and self.fence == fence


def claim(evaluation: Evaluation, *, holder: str, now: datetime, lease: timedelta) -> Evaluation:
    """Lease a pending evaluation under a new fence.

    Raises:
        NotPossible: It is not pending, or its pause is not over.
    """
    if not evaluation.can_be_claimed(now):
        raise NotPossible(f"the evaluation is {evaluation.state} and cannot be claimed now")
    return replace(
        evaluation,
        state=State.LEASED,
        fence=evaluation.fence + 1,
        not_before=None,
        holder=holder,
        until=now + lease,
        started=False,
    )


def start(evaluation: Evaluation, *, fence: int) -> Evaluation:
    """Note that a worker has started: from now on the claim counts as an attempt. May come twice.

    Raises:
        NotHeld: The claim does not hold the evaluation.
    """
    _check_held(evaluation, fence)
    if evaluation.started:
        return evaluation
    return replace(evaluation, started=True, attempts=evaluation.attempts + 1)


def renew(evaluation: Evaluation, *, fence: int, now: datetime, lease: timedelta) -> Evaluation:
    """Put off the lease's end; it never comes nearer.

    Raises:
        NotHeld: The claim does not hold the evaluation; its call is to be cancelled.
    """
    _check_held(evaluation, fence)
    until = now + lease
    if evaluation.until is not None:
        until = max(until, evaluation.until)
    return replace(evaluation, until=until)


def complete(evaluation: Evaluation, *, fence: int, prediction: int, points: int) -> Evaluation:
    """Take the result. Accepted once; it implies that a worker had started.

    Args:
        evaluation: The evaluation.
        fence: The claim's.
        prediction: The choice predicted, from 1; 0 where the reply meant none, or there is nothing
            to choose from.
        points: The points that the answer is given.

    Raises:
        NotHeld: The claim does not hold the evaluation; the result is dropped.
    """
    evaluation = start(evaluation, fence=fence)
    return replace(
        _let_go(evaluation),
        state=State.DONE,
        failures=0,
        prediction=prediction,
        points=points,
        reason=None,
    )


def fail(
    evaluation: Evaluation,
    *,
    fence: int,
    reason: str,
    retryable: bool,
    now: datetime,
    policy: Policy,
) -> Evaluation:
    """End the claim without a result.

    Where another try may succeed and one is left, the evaluation is pending again after a pause;
    otherwise it is failed.

    Raises:
        NotHeld: The claim does not hold the evaluation.
    """
    _check_held(evaluation, fence)
    return _end_claim(evaluation, reason, retryable=retryable, now=now, policy=policy)


def release(evaluation: Evaluation, *, fence: int) -> Evaluation:
    """Give the claim back before a worker started: nothing is counted and there is no pause.

    For a shutdown, a queue that is full, or a call that was ended by another question of it.

    Raises:
        NotHeld: The claim does not hold the evaluation.
        NotPossible: A worker has started; the claim can only end by `complete`, `fail` or `expire`.
    """
    _check_held(evaluation, fence)
    if evaluation.started:
        raise NotPossible("a worker has started on the evaluation; it cannot be given back")
    return replace(_let_go(evaluation), state=State.PENDING)


def expire(evaluation: Evaluation, *, now: datetime, policy: Policy) -> Evaluation:
    """Take back a lease that has lapsed. An evaluation that is not so is given back unchanged."""
    if evaluation.state is not State.LEASED or evaluation.until is None or now < evaluation.until:
        return evaluation
    reason = f"{evaluation.holder} was lost: its lease lapsed at {evaluation.until.isoformat()}"
    return _end_claim(evaluation, reason, retryable=True, now=now, policy=policy)


def abandon(evaluation: Evaluation, *, now: datetime, policy: Policy) -> Evaluation:
    """Take back a lease whose holder is known to be gone, though it has not lapsed.

    An evaluation that is not leased is given back unchanged.
    """
    if evaluation.state is not State.LEASED:
        return evaluation
    reason = f"{evaluation.holder} was lost: the service that leased it was killed"
    return _end_claim(evaluation, reason, retryable=True, now=now, policy=policy)


def retry(evaluation: Evaluation) -> Evaluation:
    """Open a failed evaluation again, with all of its attempts. The fence goes on.

    Raises:
        NotPossible: It has not failed.
    """
    if evaluation.state is not State.FAILED:
        raise NotPossible(f"the evaluation is {evaluation.state}; only failed ones can be retried")
    return replace(
        evaluation, state=State.PENDING, attempts=0, failures=0, not_before=None, reason=None
    )


def _check_held(evaluation: Evaluation, fence: int) -> None:
    if not evaluation.is_held_by(fence):
        raise NotHeld(
            f"claim {fence} does not hold the evaluation, which is {evaluation.state} "
            f"at claim {evaluation.fence}"
        )


def _end_claim(
    evaluation: Evaluation, reason: str, *, retryable: bool, now: datetime, policy: Policy
) -> Evaluation:
    ended = replace(_let_go(evaluation), failures=evaluation.failures + 1, reason=reason)
    spent = ended.attempts >= policy.attempts or ended.failed_starts >= policy.failed_starts
    if spent or not retryable:
        return replace(ended, state=State.FAILED)
    return replace(ended, state=State.PENDING, not_before=now + policy.pause(ended.failures))


def _let_go(evaluation: Evaluation) -> Evaluation:
    return replace(evaluation, holder=None, until=None, started=False)

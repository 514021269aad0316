"""Recording: what outcomes do to a run and its evaluations, in one transaction.

The run's row is locked first, then the evaluations', then the cursor: always in this order, so that
replicas do not lock each other out.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from evalpool_dataset.evaluation import (
    Evaluation,
    NotHeld,
    Policy,
    State,
    complete,
    fail,
    release,
    start,
)
from evalpool_dataset.outcome import Answered, Chunk, Outcome, Problem, Started, Unanswered
from evalpool_dataset.run import ENDED, MODEL_FAILURES, OPEN, Run, RunState
from evalpool_dataset.store import evaluations, runs
from evalpool_dataset.store.evaluations import Claim
from evalpool_runtime.errors import reason_name, reasons


@dataclass(frozen=True, slots=True)
class Recorder:
    """Records what became of a chunk's questions.

    Attributes:
        connection: The transaction.
        chunk: The chunk.
        now: What time it is.
        policy: How often a question is tried.
    """

    connection: Connection
    chunk: Chunk
    now: datetime
    policy: Policy

    def record(self, group: Iterable[Outcome]) -> Run:
        """Record outcomes under the chunk's claims; what comes too late is passed over."""
        group = list(group)
        run = runs.require_run(self.connection, self.chunk.run.id, lock=True)
        ids = {i for o in group for i in (o.ids if isinstance(o, Started) else (o.id,))}
        held = evaluations.lock(self.connection, sorted(ids))
        for outcome in group:
            if run.state in ENDED:
                # The model failed a moment ago and took all of the run's questions with it.
                break
            match outcome:
                case Started():
                    run = self._note_start(run, outcome, held)
                case Answered():
                    run = self._count(run, outcome, held)
                case Unanswered():
                    run = self._count_failure(run, outcome, held)
        return runs.save_run(self.connection, runs.settle(self.connection, run, self.now))

    def give_back(self, unfinished: dict[int, Claim], problem: Problem) -> Run:
        """End what a call left unfinished: given back, tried again, or failed with the model."""
        run = runs.require_run(self.connection, self.chunk.run.id, lock=True)
        held = evaluations.lock(self.connection, sorted(unfinished))
        if not any(held[n].is_held_by(claimed.fence) for n, claimed in unfinished.items()):
            # The run was ended, and perhaps begun again, while this call was under way.
            return run
        if problem.reason_code in MODEL_FAILURES and run.state in OPEN:
            run = self._fail_run(run, problem.reason, problem.reason_code)
            return runs.save_run(self.connection, run)
        failed = 0
        for number, claimed in unfinished.items():
            evaluation = held[number]
            if not evaluation.is_held_by(claimed.fence):
                continue
            if evaluation.started or not problem.retryable:
                evaluation = fail(
                    evaluation,
                    fence=claimed.fence,
                    reason=problem.reason,
                    retryable=problem.retryable,
                    now=self.now,
                    policy=self.policy,
                )
                failed += evaluation.state is State.FAILED
            else:
                evaluation = release(evaluation, fence=claimed.fence)
            evaluations.save(self.connection, number, evaluation, reason_code=problem.reason_code)
        run = replace(run, failed=run.failed + failed)
        if problem.reason_code == _HOLD_REFUSED and run.state in OPEN:
            run = replace(
                run,
                state=RunState.UNFUNDED,
                reason=problem.reason,
                reason_code=problem.reason_code,
            )
        return runs.save_run(self.connection, runs.settle(self.connection, run, self.now))

    def _note_start(self, run: Run, outcome: Started, held: dict[int, Evaluation]) -> Run:
        for number in outcome.ids:
            with suppress(NotHeld):
                held[number] = start(held[number], fence=self.chunk.claims[number].fence)
                evaluations.save(self.connection, number, held[number])
        if run.state is not RunState.QUEUED:
            return run
        return replace(run, state=RunState.RUNNING, start_time=run.start_time or self.now)

    def _count(self, run: Run, outcome: Answered, held: dict[int, Evaluation]) -> Run:
        fence = self.chunk.claims[outcome.id].fence
        try:
            done = complete(held[outcome.id], fence=fence, prediction=outcome.prediction)
        except NotHeld:
            # Somebody else holds it by now, or a result has been counted: this one comes too late.
            return run
        held[outcome.id] = done
        evaluations.save(self.connection, outcome.id, done, answer=outcome.answer)
        right = self.chunk.asked[outcome.id].question.answer
        counts = dict(run.metric_counts)
        for name, place in (outcome.answer.predictions or {}).items():
            counts[name] = counts.get(name, 0) + (place == right)
        counts["alike"] = counts.get("alike", 0) + outcome.alike
        counts["compared"] = counts.get("compared", 0) + outcome.compared
        return replace(
            run,
            state=RunState.RUNNING if run.state in OPEN else run.state,
            start_time=run.start_time or self.now,
            done=run.done + 1,
            correct=run.correct + (outcome.prediction == right),
            metric_counts=counts,
            provenance=run.provenance or outcome.provenance,
        )

    def _count_failure(self, run: Run, outcome: Unanswered, held: dict[int, Evaluation]) -> Run:
        fence = self.chunk.claims[outcome.id].fence
        try:
            evaluation = held[outcome.id]
            if outcome.reason_code in _WORKER_TRIED:
                # A worker that dies while it loads the model never says that it has started.
                evaluation = start(evaluation, fence=fence)
            after = fail(
                evaluation,
                fence=fence,
                reason=outcome.reason,
                retryable=outcome.retryable,
                now=self.now,
                policy=self.policy,
            )
        except NotHeld:
            return run
        held[outcome.id] = after
        evaluations.save(self.connection, outcome.id, after, reason_code=outcome.reason_code)
        run = replace(run, failed=run.failed + (after.state is State.FAILED))
        if outcome.reason_code in MODEL_FAILURES and not outcome.retryable:
            return self._fail_run(run, outcome.reason, outcome.reason_code)
        return run

    def _fail_run(self, run: Run, reason: str, code: str) -> Run:
        failed = evaluations.fail_open(self.connection, run.id, reason, code)
        return replace(
            run,
            state=RunState.FAILED,
            failed=run.failed + failed,
            reason=reason,
            reason_code=code,
            end_time=self.now,
        )


_HOLD_REFUSED = reason_name(reasons.ERROR_REASON_HOLD_REFUSED)
_WORKER_TRIED = frozenset(
    {
        reason_name(reasons.ERROR_REASON_ENGINE_FAILED),
        reason_name(reasons.ERROR_REASON_WORKER_LOST),
    }
)
"""Failures that cost an attempt, whether or not the worker said that it had started."""


def expire(
    connection: Connection, run_id: str, ids: Iterable[int], now: datetime, policy: Policy
) -> Run:
    """Take back leases of a run that have lapsed."""
    code = reason_name(reasons.ERROR_REASON_WORKER_LOST)
    run = runs.require_run(connection, run_id, lock=True)
    after = evaluations.expire_some(connection, sorted(ids), now, policy, code)
    failed = sum(evaluation.state is State.FAILED for evaluation in after)
    run = replace(run, failed=run.failed + failed)
    return runs.save_run(connection, runs.settle(connection, run, now))

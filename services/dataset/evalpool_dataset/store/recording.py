"""Recording: what outcomes do to a run and its evaluations, in one transaction.

The run's row is locked first, then the evaluations', then the cursor: always in this order, so that
replicas do not lock each other out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
from evalpool_dataset.outcome import (
    Answered,
    Chunk,
    Claim,
    Outcome,
    Started,
    Unanswered,
    Waiting,
)
from evalpool_dataset.problem import WORKER_LOST, Problem
from evalpool_dataset.run import ENDED, OPEN, Run, RunState
from evalpool_dataset.store import evaluations, runs


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
        before = run = runs.require_run(self.connection, self.chunk.run.id, lock=True)
        ids = {number for outcome in group for number in _evaluations_of(outcome)}
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
                case Waiting():
                    run = self._note_wait(run, outcome)
        return _settled(self.connection, before, run, self.now)

    def give_back(self, unfinished: dict[int, Claim], problem: Problem) -> Run:
        """End what a call left unfinished: given back, tried again, or failed with the model."""
        before = run = runs.require_run(self.connection, self.chunk.run.id, lock=True)
        held = {
            number: evaluation
            for number, evaluation in evaluations.lock(self.connection, sorted(unfinished)).items()
            if evaluation.is_held_by(unfinished[number].fence)
        }
        if not held:
            # The run was ended, and perhaps begun again, while this call was under way.
            return run
        if problem.subjects_fault and run.state in OPEN:
            run = fail_run(self.connection, run, problem, self.now)
            return runs.save_run(self.connection, run)
        # A call that got somewhere ended because of the questions that a worker was at; the others
        # only stood by. One that got nowhere failed all of them, or it would be made for ever.
        stood_by = (
            problem.waits
            or problem.unfunded
            or len(unfinished) < len(self.chunk.claims)
            or any(evaluation.started for evaluation in held.values())
        )
        failed = 0
        for number, evaluation in held.items():
            fence = unfinished[number].fence
            if stood_by and not evaluation.started:
                after = release(evaluation, fence=fence)
            else:
                after = self._fail(evaluation, fence, problem)
            failed += after.state is State.FAILED
            evaluations.save(self.connection, number, after, reason_code=problem.code)
        run = replace(run, failed=run.failed + failed)
        if problem.keeps_all_waiting:
            run = self._waiting(run, problem)
        return _settled(self.connection, before, run, self.now)

    def _note_start(self, run: Run, outcome: Started, held: dict[int, Evaluation]) -> Run:
        for number in outcome.ids:
            with suppress(NotHeld):
                held[number] = start(held[number], fence=self.chunk.claims[number].fence)
                evaluations.save(self.connection, number, held[number])
                run = self._under_way(run)
        return run

    def _note_wait(self, run: Run, outcome: Waiting) -> Run:
        if outcome.problem is not None:
            return self._waiting(run, outcome.problem)
        return replace(run, reason="", reason_code="") if run.state in OPEN else run

    def _under_way(self, run: Run) -> Run:
        """A run that a worker is at: what it may have waited for is over."""
        if run.state not in OPEN:
            return run
        return replace(
            run,
            state=RunState.RUNNING,
            reason="",
            reason_code="",
            start_time=run.start_time or self.now,
        )

    def _waiting(self, run: Run, problem: Problem) -> Run:
        """A run that the herd does not take up now: it says why, until a worker begins with it."""
        if run.state not in OPEN:
            return run
        return replace(
            run,
            state=RunState.UNFUNDED if problem.unfunded else run.state,
            reason=problem.reason,
            reason_code=problem.code,
        )

    def _count(self, run: Run, outcome: Answered, held: dict[int, Evaluation]) -> Run:
        fence = self.chunk.claims[outcome.id].fence
        try:
            done = complete(
                held[outcome.id],
                fence=fence,
                prediction=outcome.prediction,
                points=outcome.points,
            )
        except NotHeld:
            # Somebody else holds it by now, or a result has been counted: this one comes too late.
            return run
        held[outcome.id] = done
        evaluations.save(self.connection, outcome.id, done, answer=outcome.answer)
        counts = dict(run.metric_counts)
        for name, right in outcome.right.items():
            counts[name] = counts.get(name, 0) + right
        counts["alike"] = counts.get("alike", 0) + outcome.alike
        counts["compared"] = counts.get("compared", 0) + outcome.compared
        return replace(
            self._under_way(run),
            done=run.done + 1,
            correct=run.correct + (outcome.points == run.full_marks),
            points=run.points + outcome.points,
            metric_counts=counts,
            provenance=run.provenance or outcome.provenance,
        )

    def _count_failure(self, run: Run, outcome: Unanswered, held: dict[int, Evaluation]) -> Run:
        problem = outcome.problem
        fence = self.chunk.claims[outcome.id].fence
        try:
            evaluation = held[outcome.id]
            if problem.worker_was_at_it:
                evaluation = start(evaluation, fence=fence)
            if problem.waits and not evaluation.started:
                after = release(evaluation, fence=fence)
            else:
                after = self._fail(evaluation, fence, problem)
        except NotHeld:
            return run
        held[outcome.id] = after
        evaluations.save(self.connection, outcome.id, after, reason_code=problem.code)
        run = replace(run, failed=run.failed + (after.state is State.FAILED))
        if problem.keeps_all_waiting:
            run = self._waiting(run, problem)
        if problem.subjects_fault and not problem.retryable:
            return fail_run(self.connection, run, problem, self.now)
        return run

    def _fail(self, evaluation: Evaluation, fence: int, problem: Problem) -> Evaluation:
        return fail(
            evaluation,
            fence=fence,
            reason=problem.reason,
            retryable=problem.retryable,
            now=self.now,
            policy=self.policy,
        )


def _evaluations_of(outcome: Outcome) -> tuple[int, ...]:
    """The evaluations that an outcome speaks of."""
    match outcome:
        case Started():
            return outcome.ids
        case Answered() | Unanswered():
            return (outcome.id,)
        case Waiting():
            return ()


def fail_run(connection: Connection, run: Run, problem: Problem, now: datetime) -> Run:
    """End a run none of whose open questions can be answered; gives it as it is to be saved."""
    failed = evaluations.fail_open(connection, run.id, problem.reason, problem.code)
    return replace(
        run,
        state=RunState.FAILED,
        failed=run.failed + failed,
        reason=problem.reason,
        reason_code=problem.code,
        end_time=now,
    )


def take_back(
    connection: Connection,
    run_id: str,
    ids: Iterable[int],
    end: Callable[[Evaluation], Evaluation],
    now: datetime,
) -> Run:
    """Take back leases of a run whose holders are lost; see `evaluations.take_back`."""
    before = runs.require_run(connection, run_id, lock=True)
    after = evaluations.take_back(connection, sorted(ids), end, WORKER_LOST)
    failed = sum(evaluation.state is State.FAILED for evaluation in after)
    run = replace(before, failed=before.failed + failed)
    return _settled(connection, before, run, now)


def _settled(connection: Connection, before: Run, run: Run, now: datetime) -> Run:
    """Store what has become of a run; where that is nothing, its cursor stays too."""
    after = runs.settle(connection, run, now)
    return before if after == before else runs.save_run(connection, after)

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from evalpool_dataset.evaluation import (
    Evaluation,
    NotHeld,
    NotPossible,
    Policy,
    State,
    abandon,
    claim,
    complete,
    expire,
    fail,
    release,
    renew,
    retry,
    start,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=60)
POLICY = Policy(
    attempts=3,
    failed_starts=5,
    first_pause=timedelta(seconds=1),
    longest_pause=timedelta(seconds=3),
)


def leased(evaluation: Evaluation | None = None, now: datetime = NOON) -> Evaluation:
    return claim(evaluation or Evaluation(), holder="d1", now=now, lease=LEASE)


def failed(evaluation: Evaluation, *, retryable: bool = True, now: datetime = NOON) -> Evaluation:
    return fail(
        evaluation,
        fence=evaluation.fence,
        reason="the worker was lost",
        retryable=retryable,
        now=now,
        policy=POLICY,
    )


def test_a_result_is_accepted_once() -> None:
    done = complete(start(leased(), fence=1), fence=1, prediction=2, points=1)
    assert (done.state, done.prediction, done.attempts) == (State.DONE, 2, 1)
    with pytest.raises(NotHeld):
        complete(done, fence=1, prediction=3, points=1)


def test_a_result_of_an_older_claim_is_dropped() -> None:
    late = expire(start(leased(), fence=1), now=NOON + LEASE, policy=POLICY)
    again = leased(late, now=NOON + LEASE + timedelta(seconds=1))
    assert again.fence == 2
    with pytest.raises(NotHeld):
        complete(again, fence=1, prediction=2, points=1)
    assert complete(again, fence=2, prediction=1, points=1).prediction == 1


def test_a_result_that_comes_after_the_lease_lapsed_counts_if_nobody_took_it_back() -> None:
    assert leased().until == NOON + LEASE
    assert complete(leased(), fence=1, prediction=2, points=1).state is State.DONE


def test_a_result_implies_that_a_worker_had_started() -> None:
    assert complete(leased(), fence=1, prediction=0, points=1).attempts == 1


def test_failed_starts_cost_no_attempt_and_are_bounded_with_pauses_between() -> None:
    evaluation, now = Evaluation(), NOON
    for starts in range(1, POLICY.failed_starts):
        evaluation = failed(leased(evaluation, now=now), now=now)
        assert (evaluation.state, evaluation.attempts) == (State.PENDING, 0)
        assert evaluation.failed_starts == starts
        assert evaluation.not_before == now + POLICY.pause(starts)
        now += POLICY.longest_pause
    evaluation = failed(leased(evaluation, now=now), now=now)
    assert (evaluation.state, evaluation.attempts) == (State.FAILED, 0)
    assert evaluation.reason == "the worker was lost"
    assert retry(evaluation).failed_starts == 0


def test_leases_that_lapse_before_a_start_are_bounded_like_other_failed_starts() -> None:
    evaluation, now = Evaluation(), NOON
    for _ in range(POLICY.failed_starts):
        evaluation = leased(evaluation, now=now)
        now += LEASE
        evaluation = expire(evaluation, now=now, policy=POLICY)
        now += POLICY.longest_pause
    assert (evaluation.state, evaluation.attempts) == (State.FAILED, 0)


def test_a_claim_that_is_given_back_is_no_failed_start_however_often() -> None:
    evaluation = Evaluation()
    for _ in range(50):
        evaluation = release(leased(evaluation), fence=evaluation.fence + 1)
    assert (evaluation.state, evaluation.attempts, evaluation.failed_starts) == (
        State.PENDING,
        0,
        0,
    )


def test_attempts_and_failed_starts_are_counted_apart() -> None:
    evaluation = leased(failed(start(leased(), fence=1)), now=NOON + LEASE)
    assert (evaluation.attempts, evaluation.failed_starts) == (1, 0)
    evaluation = failed(evaluation)
    assert (evaluation.attempts, evaluation.failed_starts) == (1, 1)
    evaluation = start(leased(evaluation, now=NOON + LEASE), fence=3)
    assert (evaluation.attempts, evaluation.failed_starts) == (2, 1)


def test_twenty_failed_starts_take_about_an_hour() -> None:
    policy = Policy()
    pauses = [policy.pause(failures) for failures in range(1, policy.failed_starts)]
    assert timedelta(minutes=50) < sum(pauses, timedelta()) < timedelta(minutes=70)


def test_a_start_told_twice_counts_once() -> None:
    assert start(start(leased(), fence=1), fence=1).attempts == 1


def test_after_the_last_attempt_it_is_failed_with_its_reason() -> None:
    evaluation = Evaluation()
    for attempt in range(1, 4):
        evaluation = failed(start(leased(evaluation, now=NOON + attempt * LEASE), fence=attempt))
    assert (evaluation.state, evaluation.reason) == (State.FAILED, "the worker was lost")
    assert evaluation.prediction is None
    with pytest.raises(NotPossible):
        leased(evaluation, now=NOON + 99 * LEASE)


def test_a_failure_that_cannot_get_better_is_final_at_once() -> None:
    assert failed(leased(), retryable=False).state is State.FAILED


def test_pauses_double_up_to_the_longest() -> None:
    pauses = [POLICY.pause(failures) / timedelta(seconds=1) for failures in (1, 2, 3, 4, 10**9)]
    assert pauses == [1, 2, 3, 3, 3]


def test_it_cannot_be_claimed_before_its_pause_is_over() -> None:
    evaluation = failed(leased())
    with pytest.raises(NotPossible):
        leased(evaluation, now=NOON + timedelta(milliseconds=999))
    assert leased(evaluation, now=NOON + timedelta(seconds=1)).fence == 2


def test_what_is_leased_cannot_be_claimed() -> None:
    with pytest.raises(NotPossible):
        leased(leased(), now=NOON + 9 * LEASE)


def test_a_claim_given_back_can_be_taken_at_once() -> None:
    given_back = release(leased(), fence=1)
    assert (given_back.attempts, given_back.failures) == (0, 0)
    assert leased(given_back).fence == 2


def test_a_claim_that_a_worker_started_on_cannot_be_given_back() -> None:
    with pytest.raises(NotPossible):
        release(start(leased(), fence=1), fence=1)


def test_a_lease_whose_holder_is_known_to_be_gone_need_not_lapse() -> None:
    taken = abandon(start(leased(), fence=1), now=NOON, policy=POLICY)
    assert (taken.state, taken.attempts, taken.failures) == (State.PENDING, 1, 1)
    assert taken.not_before == NOON + POLICY.pause(1)
    assert taken.reason == "d1 was lost: the service that leased it was killed"
    assert abandon(leased(), now=NOON, policy=POLICY).failed_starts == 1
    assert abandon(taken, now=NOON, policy=POLICY) is taken


def test_a_renewed_lease_does_not_lapse() -> None:
    renewed = renew(leased(), fence=1, now=NOON + LEASE / 2, lease=LEASE)
    assert expire(renewed, now=NOON + LEASE, policy=POLICY) is renewed
    assert expire(renewed, now=NOON + LEASE * 1.5, policy=POLICY).state is State.PENDING


def test_renewing_with_a_clock_set_back_does_not_shorten_the_lease() -> None:
    assert renew(leased(), fence=1, now=NOON - LEASE, lease=LEASE).until == NOON + LEASE


def test_a_lost_claim_cannot_be_renewed_started_or_failed() -> None:
    lost = expire(leased(), now=NOON + LEASE, policy=POLICY)
    with pytest.raises(NotHeld):
        renew(lost, fence=1, now=NOON, lease=LEASE)
    with pytest.raises(NotHeld):
        start(lost, fence=1)
    with pytest.raises(NotHeld):
        fail(lost, fence=1, reason="", retryable=True, now=NOON, policy=POLICY)
    with pytest.raises(NotHeld):
        release(lost, fence=1)


def test_a_retried_evaluation_has_all_of_its_attempts_and_a_new_fence() -> None:
    again = retry(failed(start(leased(), fence=1), retryable=False))
    assert (again.state, again.attempts, again.fence) == (State.PENDING, 0, 1)
    assert leased(again).fence == 2


def test_only_failed_ones_can_be_retried() -> None:
    for evaluation in (Evaluation(), leased(), complete(leased(), fence=1, prediction=1, points=1)):
        with pytest.raises(NotPossible):
            retry(evaluation)


def test_a_policy_without_tries_is_refused() -> None:
    with pytest.raises(ValueError, match="attempts is 0; give at least 1"):
        Policy(attempts=0)
    with pytest.raises(ValueError, match="failed_starts is 0; give at least 1"):
        Policy(failed_starts=0)


class Life(RuleBasedStateMachine):
    """An evaluation among holders that speak late, twice and out of turn."""

    @initialize()
    def begin(self) -> None:
        self.evaluation = Evaluation()
        self.now = NOON
        self.results: list[int] = []
        self.starts: set[int] = set()
        self.failed_starts = 0
        self.fences = [0]

    @rule(seconds=st.integers(0, 90))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def claims(self) -> None:
        if self.evaluation.can_be_claimed(self.now):
            self.evaluation = leased(self.evaluation, now=self.now)
            self.fences.append(self.evaluation.fence)
        else:
            with pytest.raises(NotPossible):
                leased(self.evaluation, now=self.now)

    @rule(data=st.data())
    def starts_work(self, data: st.DataObject) -> None:
        fence = data.draw(st.sampled_from(self.fences))
        if self.evaluation.is_held_by(fence):
            self.evaluation = start(self.evaluation, fence=fence)
            self.starts.add(fence)
        else:
            with pytest.raises(NotHeld):
                start(self.evaluation, fence=fence)

    @rule(data=st.data())
    def renews(self, data: st.DataObject) -> None:
        fence = data.draw(st.sampled_from(self.fences))
        if self.evaluation.is_held_by(fence):
            before = self.evaluation.until
            self.evaluation = renew(self.evaluation, fence=fence, now=self.now, lease=LEASE)
            assert before is not None
            assert self.evaluation.until is not None
            assert self.evaluation.until >= before

    @rule(data=st.data(), prediction=st.integers(0, 3))
    def completes(self, data: st.DataObject, prediction: int) -> None:
        fence = data.draw(st.sampled_from(self.fences))
        if self.evaluation.is_held_by(fence):
            self.evaluation = complete(
                self.evaluation, fence=fence, prediction=prediction, points=1
            )
            self.starts.add(fence)
            self.results.append(prediction)
        else:
            with pytest.raises(NotHeld):
                complete(self.evaluation, fence=fence, prediction=prediction, points=1)

    @rule(data=st.data(), retryable=st.booleans())
    def fails(self, data: st.DataObject, retryable: bool) -> None:
        fence = data.draw(st.sampled_from(self.fences))
        if self.evaluation.is_held_by(fence):
            self.failed_starts += not self.evaluation.started
            self.evaluation = fail(
                self.evaluation,
                fence=fence,
                reason="lost",
                retryable=retryable,
                now=self.now,
                policy=POLICY,
            )
            spent = (
                len(self.starts) >= POLICY.attempts or self.failed_starts >= POLICY.failed_starts
            )
            final = spent or not retryable
            assert self.evaluation.state is (State.FAILED if final else State.PENDING)

    @rule()
    def sweeps(self) -> None:
        until = self.evaluation.until
        lapsed = until is not None and until <= self.now
        swept = expire(self.evaluation, now=self.now, policy=POLICY)
        assert (swept != self.evaluation) == lapsed
        self.failed_starts += lapsed and not self.evaluation.started
        self.evaluation = swept

    @rule()
    def gives_back(self) -> None:
        if self.evaluation.state is State.LEASED and not self.evaluation.started:
            self.evaluation = release(self.evaluation, fence=self.evaluation.fence)

    @precondition(lambda self: self.evaluation.state is State.FAILED)
    @rule()
    def is_retried(self) -> None:
        self.evaluation = retry(self.evaluation)
        self.starts.clear()
        self.failed_starts = 0

    @invariant()
    def at_most_one_result_counts(self) -> None:
        assert len(self.results) <= 1
        if self.results:
            assert self.evaluation.state is State.DONE
            assert self.evaluation.prediction == self.results[0]
        else:
            assert self.evaluation.state is not State.DONE
            assert self.evaluation.prediction is None

    @invariant()
    def attempts_are_what_workers_started(self) -> None:
        assert self.evaluation.attempts == len(self.starts) <= POLICY.attempts

    @invariant()
    def failed_starts_are_claims_that_failed_without_one(self) -> None:
        if self.evaluation.state is not State.DONE:
            assert self.evaluation.failed_starts == self.failed_starts <= POLICY.failed_starts

    @invariant()
    def every_state_has_just_its_own_fields(self) -> None:
        held = self.evaluation.state is State.LEASED
        assert (self.evaluation.holder is not None) == held
        assert (self.evaluation.until is not None) == held
        assert held or not self.evaluation.started
        assert self.evaluation.not_before is None or self.evaluation.state is State.PENDING

    @invariant()
    def fences_only_grow(self) -> None:
        assert self.fences == sorted(set(self.fences))
        assert self.evaluation.fence == self.fences[-1]

    @invariant()
    def a_failure_has_a_reason(self) -> None:
        assert self.evaluation.state is not State.FAILED or self.evaluation.reason


TestLife = Life.TestCase

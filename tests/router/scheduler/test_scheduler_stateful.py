"""Whatever happens in whatever order: slots and turns are kept, nothing is lost, all ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from evalpool.common.v1.error_reason_pb2 import ErrorReason
from evalpool_router.scheduler import Dispatch, Kind, Rules
from evalpool_runtime.errors import FailedPrecondition, Internal, ResourceExhausted, reasons
from tests.router.scheduler.herd_model import ALL_KINDS, MODEL, NEVER, OTHER_MODEL, HerdModel

ADDRESSES = ("a", "b", "c")
RULES = Rules(
    queue_units=120,
    ageing_seconds=2,
    tries=2,
    packages_per_worker=2,
    smallest_package=2,
    largest_package=8,
    losses=2,
    crashes=3,
    model_rest_seconds=10,
    lease_seconds=30,
    hung_seconds=11,
)

kinds = st.sampled_from([ALL_KINDS, frozenset({Kind.EVALUATE}), frozenset({Kind.CHAT, Kind.JUDGE})])
models = st.sampled_from([MODEL, OTHER_MODEL])
# One asks more than the others, so that their part of the queue fills up.
callers = st.sampled_from(["x", "x", "x", "y", "z"])
multipliers = st.sampled_from([Fraction(1), Fraction(3, 2), Fraction(100)])
memories = st.sampled_from([0, 100, 200])
only_models = st.sampled_from([(), (), (MODEL,), (OTHER_MODEL,), (MODEL, OTHER_MODEL)])
sizes = st.sampled_from([0, 50, 100, 150, 201])
troubles = st.sampled_from(
    [reasons.ERROR_REASON_MODEL_FETCH_FAILED, reasons.ERROR_REASON_MODEL_LOAD_FAILED]
)
deadlines = st.sampled_from([NEVER, NEVER, 5.0, 40.0])


class SchedulerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.herd = HerdModel(RULES)
        self.cancelled = self.herd.cancelled
        self.slots: dict[str, int] = {}

    @rule(
        address=st.sampled_from(ADDRESSES),
        slots=st.integers(1, 4),
        kinds=kinds,
        model=models,
        memory=memories,
        only=only_models,
    )
    def a_worker_registers(
        self,
        address: str,
        slots: int,
        kinds: frozenset[Kind],
        model: str,
        memory: int,
        only: tuple[str, ...],
    ) -> None:
        # The old generation is taken out before anything is sent to the new one.
        self.slots[address] = slots
        self.herd.join(address, slots=slots, kinds=kinds, models=[model], memory=memory, only=only)

    @rule(address=st.sampled_from(ADDRESSES), memory=memories, only=only_models)
    def a_worker_says_something_else_of_itself(
        self, address: str, memory: int, only: tuple[str, ...]
    ) -> None:
        view = self.herd.scheduler.worker(address, self.herd.now)
        # What it is at for another model goes on, so that the invariant below would not hold.
        if view is not None and not self.herd.at(address):
            self.herd.restate(address, memory=memory, only=only)

    @rule(
        count=st.integers(1, 40),
        caller=callers,
        model=models,
        mult=multipliers,
        left=deadlines,
        size=sizes,
    )
    def questions_come(
        self, count: int, caller: str, model: str, mult: Fraction, left: float, size: int
    ) -> None:
        with self.taken_in_where_there_is_room(count, caller):
            self.herd.score(
                count,
                caller=caller,
                model=model,
                multiplier=mult,
                deadline=self.herd.now + left,
                size=size,
            )

    @rule(
        kind=st.sampled_from(list(Kind)),
        caller=callers,
        model=models,
        mult=multipliers,
        left=deadlines,
        size=sizes,
    )
    def a_prompt_comes(
        self, kind: Kind, caller: str, model: str, mult: Fraction, left: float, size: int
    ) -> None:
        with self.taken_in_where_there_is_room(1, caller):
            self.herd.infer(
                kind=kind,
                caller=caller,
                model=model,
                multiplier=mult,
                deadline=self.herd.now + left,
                size=size,
            )

    @contextmanager
    def taken_in_where_there_is_room(self, units: int, caller: str) -> Iterator[None]:
        """What comes is refused if the queue or the caller's part of it is full."""
        queued: Counter[str] = Counter()
        for number, request in self.herd.requests.items():
            if number not in self.herd.ended and number not in self.cancelled:
                queued[request.caller] += len(self.herd.waiting(number))
        room = (
            queued.total() + units <= RULES.queue_units
            and queued[caller] + units <= RULES.queue_units * RULES.caller_share
        )
        try:
            yield
        except ResourceExhausted:
            assert not room
        else:
            assert room

    def running(self, data: st.DataObject) -> Dispatch:
        return data.draw(st.sampled_from(list(self.herd.running.values())))

    @precondition(lambda self: self.herd.running)
    @rule(data=st.data())
    def results_come(self, data: st.DataObject) -> None:
        dispatch = self.running(data)
        some = data.draw(st.lists(st.sampled_from(dispatch.questions)))
        self.herd.answer(dispatch, some)

    @precondition(lambda self: self.herd.dispatched)
    @rule(data=st.data())
    def late_results_come(self, data: st.DataObject) -> None:
        dispatch = data.draw(st.sampled_from(self.herd.dispatched))
        counting = self.herd.answer(dispatch)
        assert dispatch.id in self.herd.running or not counting

    @precondition(lambda self: self.herd.running)
    @rule(data=st.data(), all_answered=st.booleans())
    def a_stream_ends(self, data: st.DataObject, all_answered: bool) -> None:
        dispatch = self.running(data)
        if all_answered:
            self.herd.complete(dispatch)
        else:
            self.herd.finish(dispatch)

    @precondition(lambda self: self.herd.running)
    @rule(data=st.data(), accepted=st.booleans(), sent=st.booleans())
    def a_stream_breaks(self, data: st.DataObject, accepted: bool, sent: bool) -> None:
        dispatch = self.running(data)
        if accepted:
            self.herd.accept(dispatch)
            if sent and not self.herd.requests[dispatch.request].scoring:
                self.herd.send_a_part(dispatch)
        self.herd.lose(dispatch)

    @precondition(lambda self: self.herd.running)
    @rule(data=st.data())
    def a_worker_is_busy(self, data: st.DataObject) -> None:
        self.herd.refuse(self.running(data))

    @precondition(lambda self: self.herd.running)
    @rule(data=st.data(), reason=troubles, sent=st.booleans())
    def a_worker_has_trouble_of_its_own(
        self, data: st.DataObject, reason: ErrorReason.ValueType, sent: bool
    ) -> None:
        dispatch = self.running(data)
        if sent and not self.herd.requests[dispatch.request].scoring:
            self.herd.send_a_part(dispatch)
        self.herd.fail(dispatch, FailedPrecondition(reason, "no such file"))

    @rule(address=st.sampled_from(ADDRESSES), reason=troubles)
    def a_worker_fails_all_that_it_is_at(self, address: str, reason: ErrorReason.ValueType) -> None:
        for dispatch in self.herd.at(address):
            # One that fails may end others.
            if dispatch.id in self.herd.running:
                self.herd.fail(dispatch, FailedPrecondition(reason, "no such file"))

    @precondition(lambda self: self.herd.running)
    @rule(data=st.data())
    def a_worker_refuses_the_request(self, data: st.DataObject) -> None:
        error = FailedPrecondition(reasons.ERROR_REASON_DIGEST_MISMATCH, "another file")
        self.herd.fail(self.running(data), error, blamed=False)

    @precondition(lambda self: self.herd.running)
    @rule(data=st.data())
    def a_workers_engine_fails_questions(self, data: st.DataObject) -> None:
        dispatch = self.running(data)
        if self.herd.requests[dispatch.request].scoring:
            some = data.draw(st.lists(st.sampled_from(dispatch.questions)))
            error = Internal(reasons.ERROR_REASON_ENGINE_FAILED, "no room")
            self.herd.fail_questions(dispatch, some, error)

    @precondition(lambda self: self.herd.requests)
    @rule(data=st.data())
    def a_caller_goes(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.herd.requests)))
        self.herd.cancel(request)

    @rule(
        address=st.sampled_from(ADDRESSES),
        loaded=st.sets(models),
        tokens=st.integers(0, 3),
        leaving=st.booleans(),
    )
    def a_heart_beats(self, address: str, loaded: set[str], tokens: int, leaving: bool) -> None:
        if self.herd.scheduler.worker(address, self.herd.now) is not None:
            self.herd.heartbeat(address, models=loaded, computed_tokens=tokens, leaving=leaving)

    @rule(address=st.sampled_from(ADDRESSES), draining=st.booleans())
    def the_operator_drains(self, address: str, draining: bool) -> None:
        self.herd.drain(address, draining)

    @rule(address=st.sampled_from(ADDRESSES), assigned=kinds)
    def the_operator_assigns(self, address: str, assigned: frozenset[Kind]) -> None:
        self.herd.carry_out(self.herd.scheduler.assign(address, assigned, self.herd.now))

    @rule(address=st.sampled_from(ADDRESSES), times=st.integers(1, 3))
    def a_worker_crashes(self, address: str, times: int) -> None:
        for _ in range(times):
            self.herd.crash(address)
            self.herd.wait(3.0)

    @rule(address=st.sampled_from(ADDRESSES))
    def a_worker_leaves(self, address: str) -> None:
        if self.herd.scheduler.worker(address, self.herd.now) is not None:
            self.herd.leave(address)

    @rule(seconds=st.sampled_from([0.2, 3.0, 12.0]))
    def time_passes(self, seconds: float) -> None:
        self.herd.wait(seconds)

    @rule()
    def the_moment_comes_that_the_scheduler_has_named(self) -> None:
        due = self.herd.scheduler.next_time()
        if due is not None and due < self.herd.now + 60:
            self.herd.wait(max(due - self.herd.now, 0.0))

    @invariant()
    def the_herd_is_who_was_heard_of_and_gets_on(self) -> None:
        listed = {view.address for view in self.herd.scheduler.workers(self.herd.now)}
        assert listed == self.herd.leases.present

    @invariant()
    def load_is_what_is_outstanding(self) -> None:
        views = self.herd.scheduler.workers(self.herd.now)
        at = Counter(d.worker for d in self.herd.running.values())
        assert set(at) <= {view.address for view in views}
        for view in views:
            assert view.busy_slots == at[view.address] <= view.slots
            here = self.herd.at(view.address)
            assert all(d.generation == view.generation for d in here)
            assert view.outstanding_tokens == sum(
                self.herd.requests[d.request].tokens[q]
                for d in here
                for q in self.herd.outstanding(d)
            )
            packages = sum(self.herd.requests[d.request].scoring for d in here)
            assert packages <= RULES.packages_per_worker

    @invariant()
    def a_worker_that_is_dedicated_to_models_is_at_no_other(self) -> None:
        for dispatch in self.herd.running.values():
            only = self.herd.only_models[dispatch.worker]
            assert not only or self.herd.requests[dispatch.request].model in only

    @invariant()
    def nothing_is_in_two_places_or_nowhere(self) -> None:
        queued = running = completed = 0
        for number, request in self.herd.requests.items():
            finished = self.herd.done[number] + self.herd.given_up[number]
            assert len(finished) == len(set(finished))
            completed += len(self.herd.done[number])
            out = [
                q
                for d in self.herd.running.values()
                if d.request == number
                for q in self.herd.outstanding(d)
            ]
            assert not set(out) & set(finished)
            assert len(out) == len(set(out))
            if number in self.herd.ended or number in self.cancelled:
                assert not out
                if number in self.herd.ended and self.herd.ended[number] is None:
                    assert len(finished) == len(request.tokens)
                continue
            assert len(finished) < len(request.tokens)
            running += len(out)
            queued += len(request.tokens) - len(finished) - len(out)
        totals = self.herd.scheduler.totals()
        assert (totals.queued, totals.running, totals.completed) == (queued, running, completed)

    @invariant()
    def nothing_outlives_its_deadline(self) -> None:
        due = self.herd.scheduler.next_time()
        for number, request in self.herd.requests.items():
            if number not in self.herd.ended and number not in self.cancelled:
                assert request.deadline > self.herd.now
                assert due is not None
                assert due <= request.deadline

    @invariant()
    def every_unit_is_counted_once(self) -> None:
        totals = self.herd.scheduler.totals()
        cancelled = sum(
            len(self.herd.requests[n].tokens) - len(self.herd.done[n]) - len(self.herd.given_up[n])
            for n in self.cancelled
        )
        submitted = sum(len(request.tokens) for request in self.herd.requests.values())
        assert submitted == cancelled + (
            totals.queued + totals.running + totals.completed + totals.failed
        )

    @invariant()
    def the_figures_of_models_and_workers_add_up_to_the_whole(self) -> None:
        scheduler, now = self.herd.scheduler, self.herd.now
        totals, models = scheduler.totals(), scheduler.models(now)
        for name in ("queued", "running", "completed", "failed"):
            assert sum(getattr(m.totals, name) for m in models) == getattr(totals, name)
        assert sum(view.running for view in scheduler.workers(now)) == totals.running
        rate = sum(model.rates.units for model in models)
        assert rate == pytest.approx(scheduler.per_second(now).units)

    @invariant()
    def nothing_waits_beside_a_worker_with_room_for_it(self) -> None:
        views = [view for view in self.herd.scheduler.workers(self.herd.now) if view.free_slots]
        for number, request in self.herd.requests.items():
            if number in self.herd.ended or number in self.cancelled:
                continue
            if self.herd.are_tries_used_up(number):
                # It waits for those that are at another part of it.
                assert any(d.request == number for d in self.herd.running.values())
                continue
            waiting = self.herd.waiting(number)
            for view in views:
                packages = sum(
                    self.herd.requests[d.request].scoring for d in self.herd.at(view.address)
                )
                if request.kind in view.kinds and not (
                    request.scoring and packages == RULES.packages_per_worker
                ):
                    assert not any(
                        self.herd.may_take(view.address, number, [question]) for question in waiting
                    )

    @invariant()
    def nothing_waits_for_workers_that_have_all_failed_it(self) -> None:
        for number in self.herd.requests:
            if number in self.herd.ended or number in self.cancelled:
                continue
            under_way = any(d.request == number for d in self.herd.running.values())
            for question in self.herd.waiting(number):
                of_it = self.herd.question_failed_at[number, question]
                assert len(of_it) < RULES.tries
                if self.herd.others(number, set()) and not self.herd.others(
                    number, of_it | self.herd.failed_at[number]
                ):
                    # It may end when those that are at another part of it have not done better.
                    assert under_way
                    assert not of_it

    def teardown(self) -> None:
        """Given workers that work, everything ends."""
        if self.herd.is_at_odds:
            return
        for address in ADDRESSES:
            self.herd.join(address, slots=4)
            self.herd.drain(address, False)
        while self.herd.running or self.herd.scheduler.totals().queued:
            self.herd.run_to_the_end()
            for address in ADDRESSES:
                if self.herd.scheduler.worker(address, self.herd.now) is None:
                    self.herd.join(address, slots=4)
                self.herd.heartbeat(address)
            self.herd.wait(10.0)
        for number in self.herd.requests:
            assert number in self.herd.ended or number in self.cancelled
        for view in self.herd.scheduler.workers(self.herd.now):
            assert (view.busy_slots, view.outstanding_tokens) == (0, 0)


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)

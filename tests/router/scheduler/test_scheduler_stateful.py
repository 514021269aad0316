"""Whatever happens in whatever order: slots are kept, nothing is lost or doubled, all ends."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from evalpool_router.scheduler import Dispatch, Kind, Rules
from evalpool_runtime.errors import FailedPrecondition, ResourceExhausted, reasons
from tests.router.scheduler.herd_model import ALL_KINDS, MODEL, NEVER, OTHER_MODEL, HerdModel

ADDRESSES = ("a", "b", "c")
RULES = Rules(
    queue_units=120,
    packages_per_worker=2,
    smallest_package=2,
    largest_package=8,
    losses=2,
    lease_seconds=30,
    hung_seconds=20,
)

kinds = st.sampled_from([ALL_KINDS, frozenset({Kind.EVALUATE}), frozenset({Kind.CHAT, Kind.JUDGE})])
models = st.sampled_from([MODEL, OTHER_MODEL])
callers = st.sampled_from(["x", "y", "z"])
multipliers = st.sampled_from([Fraction(1), Fraction(3, 2), Fraction(100)])
deadlines = st.sampled_from([NEVER, NEVER, 5.0, 40.0])


class SchedulerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.herd = HerdModel(RULES)
        self.cancelled: set[int] = set()
        self.slots: dict[str, int] = {}

    @rule(address=st.sampled_from(ADDRESSES), slots=st.integers(1, 4), kinds=kinds, model=models)
    def a_worker_registers(
        self, address: str, slots: int, kinds: frozenset[Kind], model: str
    ) -> None:
        # The old generation is taken out before anything is sent to the new one.
        self.slots[address] = slots
        self.herd.join(address, slots=slots, kinds=kinds, models=[model])

    @rule(count=st.integers(1, 40), caller=callers, model=models, mult=multipliers, left=deadlines)
    def questions_come(
        self, count: int, caller: str, model: str, mult: Fraction, left: float
    ) -> None:
        try:
            self.herd.score(
                count,
                caller=caller,
                model=model,
                multiplier=mult,
                deadline=self.herd.now + left,
            )
        except ResourceExhausted:
            assert self.herd.scheduler.totals().queued + count > RULES.queue_units * (
                RULES.caller_share
            )

    @rule(kind=st.sampled_from(list(Kind)), caller=callers, model=models, left=deadlines)
    def a_prompt_comes(self, kind: Kind, caller: str, model: str, left: float) -> None:
        try:
            self.herd.infer(kind=kind, caller=caller, model=model, deadline=self.herd.now + left)
        except ResourceExhausted:
            assert self.herd.scheduler.totals().queued >= RULES.queue_units * RULES.caller_share - 1

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
            self.herd.scheduler.accepted(dispatch.id, self.herd.now)
            if sent and not self.herd.requests[dispatch.request].scoring:
                self.herd.scheduler.sent(dispatch.id)
        self.herd.lose(dispatch)

    @precondition(lambda self: self.herd.running)
    @rule(data=st.data())
    def a_worker_is_busy(self, data: st.DataObject) -> None:
        self.herd.refuse(self.running(data))

    @precondition(lambda self: self.herd.running)
    @rule(data=st.data(), blamed=st.booleans())
    def a_dispatch_fails(self, data: st.DataObject, blamed: bool) -> None:
        dispatch = self.running(data)
        error = FailedPrecondition(reasons.ERROR_REASON_MODEL_FETCH_FAILED, "no such file")
        del self.herd.running[dispatch.id]
        self.herd.carry_out(
            self.herd.scheduler.failed(dispatch.id, error, self.herd.now, blamed=blamed)
        )

    @precondition(lambda self: self.herd.requests)
    @rule(data=st.data())
    def a_caller_goes(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.herd.requests)))
        if request not in self.herd.ended:
            self.cancelled.add(request)
        self.herd.carry_out(self.herd.scheduler.cancel(request, self.herd.now))

    @rule(address=st.sampled_from(ADDRESSES), tokens=st.integers(0, 3), leaving=st.booleans())
    def a_heart_beats(self, address: str, tokens: int, leaving: bool) -> None:
        if self.herd.scheduler.worker(address, self.herd.now) is not None:
            self.herd.heartbeat(address, models=[MODEL], computed_tokens=tokens, leaving=leaving)

    @rule(address=st.sampled_from(ADDRESSES), draining=st.booleans())
    def the_operator_drains(self, address: str, draining: bool) -> None:
        self.herd.carry_out(self.herd.scheduler.drain(address, draining, self.herd.now))

    @rule(address=st.sampled_from(ADDRESSES), left=kinds)
    def the_operator_restricts(self, address: str, left: frozenset[Kind]) -> None:
        self.herd.carry_out(self.herd.scheduler.restrict(address, left, self.herd.now))

    @rule(address=st.sampled_from(ADDRESSES))
    def a_worker_leaves(self, address: str) -> None:
        if self.herd.scheduler.worker(address, self.herd.now) is not None:
            self.herd.carry_out(
                self.herd.scheduler.worker_left(
                    address, self.herd.generations[address], self.herd.now
                )
            )

    @rule(seconds=st.sampled_from([0.2, 3.0, 12.0]))
    def time_passes(self, seconds: float) -> None:
        self.herd.wait(seconds)

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
                for q in d.questions
                if q not in self.herd.done[d.request]
            )
            packages = sum(self.herd.requests[d.request].scoring for d in here)
            assert packages <= RULES.packages_per_worker

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
                for q in d.questions
                if q not in self.herd.done[number]
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
    def nobody_waits_beside_an_idle_worker(self) -> None:
        able = [
            view
            for view in self.herd.scheduler.workers(self.herd.now)
            if not view.draining and not view.resting and view.busy_slots == 0
        ]
        for number, request in self.herd.requests.items():
            if number in self.herd.ended or number in self.cancelled:
                continue
            waits = not any(d.request == number for d in self.herd.running.values())
            assert not (waits and any(request.kind in view.kinds for view in able))

    def teardown(self) -> None:
        """Given workers that work, everything ends."""
        for address in ADDRESSES:
            self.herd.join(address, slots=4)
            self.herd.carry_out(self.herd.scheduler.drain(address, False, self.herd.now))
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
TestScheduler.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)

from __future__ import annotations

import itertools
from fractions import Fraction

from evalpool_router.scheduler import Kind, Request, Rules
from evalpool_router.scheduler.fair_queue import FairQueue
from evalpool_router.scheduler.ticket import Ticket
from evalpool_router.scheduler.work import Requirement
from tests.router.scheduler.herd_model import MODEL, OTHER_MODEL, HerdModel


def test_callers_take_turns() -> None:
    herd = HerdModel()
    for _ in range(4):
        herd.infer(caller="many")
    herd.infer(caller="few")
    herd.infer(caller="other")
    herd.join("a", slots=1)
    herd.run_to_the_end()
    callers = [herd.requests[d.request].caller for d in herd.dispatched]
    assert callers == ["many", "few", "other", "many", "many", "many"]


def test_a_chat_is_served_between_the_packages_of_a_long_run() -> None:
    herd = HerdModel()
    herd.join("a", slots=1)
    herd.score(1000)
    herd.wait(1.0)
    chat = herd.infer(caller="someone")
    herd.complete(herd.at("a")[0])
    herd.complete(herd.at("a")[0])
    assert chat in {d.request for d in herd.dispatched[:3]}


def test_a_higher_multiplier_goes_first() -> None:
    herd = HerdModel()
    first = herd.infer(caller="plain")
    second = herd.infer(caller="paying", multiplier=Fraction(2))
    third = herd.infer(caller="paying", multiplier=Fraction(4))
    herd.join("a", slots=1)
    herd.run_to_the_end()
    assert [d.request for d in herd.dispatched] == [third, second, first]


def test_waiting_long_enough_outweighs_any_multiplier() -> None:
    herd = HerdModel(Rules(ageing_seconds=10))
    patient = herd.infer(caller="plain")
    herd.wait(101)
    rich = herd.infer(caller="rich", multiplier=Fraction(10**9))
    herd.join("a", slots=1)
    herd.run_to_the_end()
    assert [d.request for d in herd.dispatched] == [patient, rich]


def test_the_position_counts_what_goes_before() -> None:
    herd = HerdModel()
    herd.score(100)
    second = herd.score(10)
    assert herd.scheduler.position(second) == 100
    herd.join("a", slots=1)
    assert herd.scheduler.position(second) == 50
    assert herd.scheduler.position(1) == 0


def test_a_requirement_is_looked_at_only_while_something_waits_with_it() -> None:
    queue = FairQueue(
        60.0,
        itertools.count(),
        lambda portion: Requirement(model=portion.ticket.request.model),
    )
    tickets = [
        Ticket(Request(number, "x", Kind.CHAT, model, (1,), 1e9), 0.0, number)
        for number, model in enumerate([MODEL, OTHER_MODEL, MODEL])
    ]
    for ticket in tickets:
        queue.put(ticket, 0.0)
    own, other = Requirement(model=MODEL), Requirement(model=OTHER_MODEL)
    for ticket, left in zip(tickets, ([own, other], [own], []), strict=True):
        queue.remove(ticket.pending)
        assert queue.requirements == left
    assert queue.peek([own, other]) is None
    queue.put(Ticket(tickets[1].request, 0.0, 4), 0.0)
    assert queue.requirements == [other]

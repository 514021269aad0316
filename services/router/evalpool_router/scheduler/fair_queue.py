"""The queue of one lane: callers take turns, offers and waiting count.

Each caller has a flow of requests. Among flows the one goes first whose `turn - ageing * doublings`
is least, where `turn` is when it last had its turn (or began to wait) and `doublings` the logarithm
of the multiplier of its first request. With equal multipliers that is round robin; twice the
multiplier counts as `ageing` seconds of waiting, so an offer goes first and nobody waits for ever.
Neither number changes while a flow waits, so heaps hold them and every step costs a logarithm.

What waits is kept apart by what it requires of a worker, so that work which no worker with room can
take holds up none that one can. A caller's turn is one and the same whatever its requests require.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from evalpool_router.scheduler.ticket import Portion, Ticket
from evalpool_router.scheduler.work import Requirement

Key: TypeAlias = tuple[int, float, int]
"""Order among flows, least first: 0 for returned work, 1 for the rest; seconds; a tie-breaker."""


@dataclass(slots=True, eq=False)
class _Line:
    """What waits of one caller with one requirement."""

    heap: list[tuple[int, float, int, int, Portion]] = field(default_factory=list)
    key: Key | None = None


@dataclass(slots=True, eq=False)
class _Flow:
    caller: str
    turn: float
    turn_number: int
    lines: dict[Requirement, _Line] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Group:
    """Callers in order of their turns, for one requirement."""

    least_bytes: int
    lines: int = 0
    heap: list[tuple[Key, str]] = field(default_factory=list)


class FairQueue:
    """Requests of one lane.

    Args:
        ageing_seconds: What a doubling of the multiplier is worth.
        numbers: Gives ever larger numbers, shared by all lanes, so that turns compare across them.
        require: Says what a portion requires of a worker, as the herd stands.
    """

    def __init__(
        self,
        ageing_seconds: float,
        numbers: Iterator[int],
        require: Callable[[Portion], Requirement],
    ) -> None:
        self._ageing = ageing_seconds
        self._numbers = numbers
        self._require = require
        self._entries = itertools.count(1)
        self._flows: dict[str, _Flow] = {}
        self._groups: dict[Requirement, _Group] = {}
        self._put = 0
        self._left = 0

    @property
    def waiting(self) -> int:
        """Units that wait."""
        return self._put - self._left

    @property
    def requirements(self) -> list[Requirement]:
        """What the waiting portions require."""
        return list(self._groups)

    def put(self, ticket: Ticket, now: float) -> None:
        """Let a new request, with all its units pending, wait."""
        ticket.mark = self._put
        self._put += len(ticket.pending.units)
        self._enter(ticket.pending, now)

    def put_back(self, portion: Portion, units: int, now: float) -> None:
        """Let units that were taken, and are in the portion now, go before everybody."""
        self._left -= units
        self._enter(portion, now)

    def peek(self, requirements: Sequence[Requirement]) -> tuple[Key, Portion] | None:
        """Whose turn it is, and its order among lanes; None where nothing waits.

        Args:
            requirements: Those that can be met now; what requires anything else is passed over.
        """
        turns = [turn for each in requirements if (turn := self._first(each)) is not None]
        if not turns:
            return None
        key, flow = min(turns, key=lambda turn: turn[0])
        # The turn is the caller's, who uses it for what is most worth to them.
        heads = [
            line.heap[0] for each in requirements if (line := flow.lines.get(each)) is not None
        ]
        return key, min(heads, key=lambda head: head[:3])[-1]

    def took(self, ticket: Ticket, units: int, now: float) -> None:
        """Units of a request have been taken out: its caller has had a turn."""
        self._left += units
        flow = self._flows[ticket.request.caller]
        flow.turn, flow.turn_number = now, next(self._numbers)
        for requirement in list(flow.lines):
            self._settle(flow, requirement)

    def remove(self, portion: Portion) -> None:
        """Forget a portion that waits."""
        self._left += len(portion.units)
        portion.units.clear()
        flow = self._flows.get(portion.ticket.request.caller)
        if flow is not None:
            self._settle(flow, portion.requirement)

    def refile(self, portion: Portion) -> None:
        """Keep the place of a portion that waits, where its requirement may have changed."""
        flow = self._flows[portion.ticket.request.caller]
        before = portion.requirement
        self._push(flow, portion)
        self._settle(flow, portion.requirement)
        self._settle(flow, before)

    def memory_joined(self, memory: int) -> None:
        """Look again at what the portions require: a worker has come with so much memory."""
        if any(r.memory > memory >= group.least_bytes for r, group in self._groups.items()):
            waiting = [(flow, list(self._waiting(flow))) for flow in self._flows.values()]
            self._groups.clear()
            for flow, portions in waiting:
                flow.lines.clear()
                for portion in portions:
                    self._push(flow, portion)
                for requirement in list(flow.lines):
                    self._settle(flow, requirement)

    def ahead(self, ticket: Ticket) -> int:
        """About how many units go before the request's next one, as if in order of arrival."""
        gone = len(ticket.request.tokens) - ticket.waiting
        return max(ticket.mark + gone - self._left, 0)

    def _first(self, requirement: Requirement) -> tuple[Key, _Flow] | None:
        """The flow whose turn it is of those with a requirement; void entries before it go."""
        group = self._groups.get(requirement)
        if group is None:
            return None
        while group.heap:
            key, caller = group.heap[0]
            flow = self._flows.get(caller)
            line = None if flow is None else flow.lines.get(requirement)
            if flow is not None and line is not None and line.key == key:
                return key, flow
            heapq.heappop(group.heap)
        return None

    def _enter(self, portion: Portion, now: float) -> None:
        caller = portion.ticket.request.caller
        flow = self._flows.get(caller)
        if flow is None:
            flow = self._flows[caller] = _Flow(caller, now, next(self._numbers))
        self._push(flow, portion)
        self._settle(flow, portion.requirement)

    def _push(self, flow: _Flow, portion: Portion) -> None:
        ticket = portion.ticket
        portion.requirement = self._require(portion)
        portion.entry = next(self._entries)
        rank = 0 if portion.returned else 1
        worth = ticket.submitted - self._ageing * ticket.doublings
        group = self._groups.get(portion.requirement)
        if group is None:
            group = self._groups[portion.requirement] = _Group(ticket.request.model_bytes)
        else:
            group.least_bytes = min(group.least_bytes, ticket.request.model_bytes)
        line = flow.lines.get(portion.requirement)
        if line is None:
            line = flow.lines[portion.requirement] = _Line()
            group.lines += 1
        heapq.heappush(line.heap, (rank, worth, ticket.order, portion.entry, portion))

    def _waiting(self, flow: _Flow) -> Iterator[Portion]:
        for line in flow.lines.values():
            for *_, entry, portion in line.heap:
                if entry == portion.entry and portion.units:
                    yield portion

    def _head(self, line: _Line) -> Portion | None:
        while line.heap:
            *_, entry, portion = line.heap[0]
            if entry == portion.entry and portion.units:
                return portion
            heapq.heappop(line.heap)
        return None

    def _key(self, flow: _Flow, head: Portion) -> Key:
        ticket = head.ticket
        if head.returned:
            return 0, ticket.submitted, ticket.order
        return 1, flow.turn - self._ageing * ticket.doublings, flow.turn_number

    def _settle(self, flow: _Flow, requirement: Requirement) -> None:
        """Bring the flow's place among flows up to date, or drop what of it is empty."""
        line = flow.lines.get(requirement)
        if line is None:
            return
        head = self._head(line)
        if head is None:
            del flow.lines[requirement]
            self._leave(requirement)
            if not flow.lines and self._flows.get(flow.caller) is flow:
                del self._flows[flow.caller]
            return
        key = self._key(flow, head)
        if key != line.key:
            line.key = key
            heapq.heappush(self._groups[requirement].heap, (key, flow.caller))

    def _leave(self, requirement: Requirement) -> None:
        """A line has gone out of its group; one without lines goes too, as each costs a look."""
        group = self._groups[requirement]
        group.lines -= 1
        if not group.lines:
            del self._groups[requirement]

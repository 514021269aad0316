"""The queue of one lane: callers take turns, offers and waiting count.

Each caller has a flow of requests. Among flows the one goes first whose `turn - ageing * doublings`
is least, where `turn` is when it last had its turn (or began to wait) and `doublings` the logarithm
of the multiplier of its first request. With equal multipliers that is round robin; twice the
multiplier counts as `ageing` seconds of waiting, so an offer goes first and nobody waits for ever.
Neither number changes while a flow waits, so heaps hold them and every step costs a logarithm.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from evalpool_router.scheduler.ticket import Ticket

Key: TypeAlias = tuple[int, float, int]
"""Order among flows, least first: 0 for returned work, 1 for the rest; seconds; a tie-breaker."""


@dataclass(slots=True, eq=False)
class _Flow:
    caller: str
    turn: float
    turn_number: int
    heap: list[tuple[int, float, int, int, Ticket]] = field(default_factory=list)
    key: Key | None = None


class FairQueue:
    """Requests that the same workers can take.

    Args:
        ageing_seconds: What a doubling of the multiplier is worth.
        numbers: Gives ever larger numbers, shared by all lanes, so that turns compare across them.
    """

    def __init__(self, ageing_seconds: float, numbers: Iterator[int]) -> None:
        self._ageing = ageing_seconds
        self._numbers = numbers
        self._entries = itertools.count(1)
        self._flows: dict[str, _Flow] = {}
        self._heap: list[tuple[Key, str]] = []
        self._put = 0
        self._left = 0

    @property
    def waiting(self) -> int:
        """Units that wait."""
        return self._put - self._left

    def put(self, ticket: Ticket, now: float) -> None:
        """Let a new request, with all its units pending, wait."""
        ticket.mark = self._put
        self._put += ticket.waiting
        self._enter(ticket, now)

    def put_back(self, ticket: Ticket, units: int, now: float) -> None:
        """Let units that were taken, and are in `ticket.returned` now, go before everybody."""
        self._left -= units
        self._enter(ticket, now)

    def peek(self) -> tuple[Key, Ticket] | None:
        """The request whose turn it is, and its order among lanes; None where nothing waits."""
        while self._heap:
            key, caller = self._heap[0]
            flow = self._flows.get(caller)
            if flow is not None and flow.key == key:
                head = self._head(flow)
                if head is not None and self._key(flow, head) == key:
                    return key, head
                self._settle(flow)
            else:
                heapq.heappop(self._heap)
        return None

    def took(self, ticket: Ticket, units: int, now: float) -> None:
        """Units of the request have been taken out of it: its caller has had a turn."""
        self._left += units
        flow = self._flows[ticket.request.caller]
        flow.turn, flow.turn_number = now, next(self._numbers)
        if ticket.waiting:
            # Its rank may have changed with the last returned unit.
            self._push(flow, ticket)
        self._settle(flow)

    def remove(self, ticket: Ticket) -> None:
        """Forget a request that waits."""
        self._left += ticket.waiting
        ticket.pending.clear()
        ticket.returned.clear()
        flow = self._flows.get(ticket.request.caller)
        if flow is not None:
            self._settle(flow)

    def ahead(self, ticket: Ticket) -> int:
        """About how many units go before the request's next one, as if in order of arrival."""
        gone = len(ticket.request.tokens) - ticket.waiting
        return max(ticket.mark + gone - self._left, 0)

    def _enter(self, ticket: Ticket, now: float) -> None:
        caller = ticket.request.caller
        flow = self._flows.get(caller)
        if flow is None:
            flow = self._flows[caller] = _Flow(caller, now, next(self._numbers))
        self._push(flow, ticket)
        self._settle(flow)

    def _push(self, flow: _Flow, ticket: Ticket) -> None:
        ticket.entry = next(self._entries)
        rank = 0 if ticket.returned else 1
        worth = ticket.submitted - self._ageing * ticket.doublings
        heapq.heappush(flow.heap, (rank, worth, ticket.order, ticket.entry, ticket))

    def _head(self, flow: _Flow) -> Ticket | None:
        while flow.heap:
            *_, entry, ticket = flow.heap[0]
            if entry == ticket.entry and ticket.waiting:
                return ticket
            heapq.heappop(flow.heap)
        return None

    def _key(self, flow: _Flow, head: Ticket) -> Key:
        if head.returned:
            return 0, head.submitted, head.order
        return 1, flow.turn - self._ageing * head.doublings, flow.turn_number

    def _settle(self, flow: _Flow) -> None:
        """Bring the flow's place among flows up to date, or drop it where it is empty."""
        head = self._head(flow)
        if head is None:
            flow.key = None
            self._flows.pop(flow.caller, None)
            return
        key = self._key(flow, head)
        if key != flow.key:
            flow.key = key
            heapq.heappush(self._heap, (key, flow.caller))

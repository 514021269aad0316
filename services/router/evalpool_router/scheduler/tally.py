"""How many units wait, run, are done and are given up, and how fast."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from evalpool_router.scheduler import refusals
from evalpool_router.scheduler.rules import Rules
from evalpool_router.scheduler.throughput import Throughput
from evalpool_router.scheduler.work import Request


@dataclass(frozen=True, slots=True)
class Totals:
    """Units by what became of them; a unit is a question, or a request of one prompt.

    Attributes:
        queued: Waiting.
        running: At workers.
        completed: Done since the start.
        failed: Given up since the start.
    """

    queued: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0


class Tally:
    """Counts units by model, and what waits by caller.

    Args:
        rules: The queue's bounds.
        now: The present second.
    """

    def __init__(self, rules: Rules, now: float) -> None:
        self._rules = rules
        self._queued = 0
        self._bytes = 0
        self._queued_of: Counter[str] = Counter()
        self._by_model: dict[str, Counter[str]] = {}
        self._throughput = Throughput(now)

    def check_room(self, request: Request, now: float) -> None:
        """Refuse a request for which the queue has no room.

        Raises:
            ResourceExhausted: The queue is full, or the caller's part of it.
        """
        rules, units = self._rules, len(request.tokens)
        full = (
            self._queued + units > rules.queue_units
            or self._bytes + request.size_bytes > rules.queue_bytes
        )
        share = self._queued_of[request.caller] + units > rules.queue_units * rules.caller_share
        if full or share:
            rate, _ = self.per_second(now)
            raise refusals.queue_full(self._queued, rate, whole=full)

    def hold(self, request: Request) -> None:
        """The request's bytes are held."""
        self._bytes += request.size_bytes

    def let_go(self, request: Request) -> None:
        """The request's bytes are no longer held."""
        self._bytes -= request.size_bytes

    def queued(self, request: Request, units: int) -> None:
        """So many more units of the request wait; fewer where it is negative."""
        self._queued += units
        self._queued_of[request.caller] += units
        if not self._queued_of[request.caller]:
            del self._queued_of[request.caller]
        self._of(request)["queued"] += units

    def running(self, request: Request, units: int) -> None:
        """So many more units of the request are at workers; fewer where it is negative."""
        self._of(request)["running"] += units

    def completed(self, request: Request, units: int, tokens: int, now: float) -> None:
        """Units that were at workers are done."""
        self.running(request, -units)
        self._of(request)["completed"] += units
        self._throughput.add(units, tokens, now)

    def failed(self, request: Request, units: int) -> None:
        """Units are given up."""
        self._of(request)["failed"] += units

    def totals(self) -> Totals:
        """Units of all models."""
        together: Counter[str] = Counter()
        for counts in self._by_model.values():
            together.update(counts)
        return Totals(**together)

    def totals_by_model(self) -> dict[str, Totals]:
        """Units by the model's digest."""
        return {model: Totals(**counts) for model, counts in sorted(self._by_model.items())}

    def per_second(self, now: float) -> tuple[float, float]:
        """Units and tokens finished a second, over the last minute."""
        return self._throughput.per_second(now)

    def _of(self, request: Request) -> Counter[str]:
        counts = self._by_model.get(request.model)
        if counts is None:
            counts = self._by_model[request.model] = Counter()
        return counts

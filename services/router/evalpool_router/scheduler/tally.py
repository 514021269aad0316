"""How many units wait, run, are done and are given up, and how fast."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from evalpool_router.scheduler import refusals
from evalpool_router.scheduler.rules import Rules
from evalpool_router.scheduler.throughput import Rates, Throughput
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


@dataclass(frozen=True, slots=True)
class _Model:
    throughput: Throughput
    counts: Counter[str] = field(default_factory=Counter)


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
        self._by_model: dict[str, _Model] = {}
        self._begun = now
        self._throughput = Throughput(now)

    def check_room(self, request: Request, now: float) -> None:
        """Refuse a request for which the queue has no room.

        Raises:
            ResourceExhausted: The queue is full, or the caller's part of it, or the request is
                larger than that.
        """
        rules, units = self._rules, len(request.tokens)
        most = int(rules.queue_units * rules.caller_share)
        if units > most:
            raise refusals.too_large(units, most, "questions or prompts", "--queue-units")
        if request.size_bytes > rules.queue_bytes:
            raise refusals.too_large(
                request.size_bytes, rules.queue_bytes, "bytes", "--queue-bytes"
            )
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
        self._of(request).counts["queued"] += units

    def running(self, request: Request, units: int) -> None:
        """So many more units of the request are at workers; fewer where it is negative."""
        self._of(request).counts["running"] += units

    def completed(self, request: Request, units: int, tokens: int, now: float) -> None:
        """Units that were at workers are done."""
        self.running(request, -units)
        model = self._of(request)
        model.counts["completed"] += units
        model.throughput.add(units, tokens, now)
        self._throughput.add(units, tokens, now)

    def failed(self, request: Request, units: int) -> None:
        """Units are given up."""
        self._of(request).counts["failed"] += units

    def totals(self) -> Totals:
        """Units of all models."""
        together: Counter[str] = Counter()
        for model in self._by_model.values():
            together.update(model.counts)
        return Totals(**together)

    def by_model(self, now: float) -> dict[str, tuple[Totals, Rates]]:
        """Units by the model's digest, and how fast they get done; rates add up to the whole's."""
        return {
            digest: (Totals(**model.counts), model.throughput.per_second(now))
            for digest, model in sorted(self._by_model.items())
        }

    def per_second(self, now: float) -> Rates:
        """Units and tokens finished a second, over the last minute."""
        return self._throughput.per_second(now)

    def rate_window(self, now: float) -> float:
        """Seconds that rates are taken over."""
        return self._throughput.window(now)

    def _of(self, request: Request) -> _Model:
        model = self._by_model.get(request.model)
        if model is None:
            model = self._by_model[request.model] = _Model(Throughput(self._begun))
        return model

"""The metrics of paid inference."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from evalpool_router.hold import Charge
from evalpool_router.prices import Flaw


class ChargeMetrics:
    """What holds bring in, for Prometheus; all stays 0 where inference is free."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._refused = Counter(
            "evalpool_router_holds_refused_total",
            "Requests for inference refused because no hold pays for them, by what is wrong with "
            "it: missing, unknown, of another holder, for another recipient, settled, expires too "
            "early, too small, or taken by another request.",
            ["flaw"],
            registry=registry,
        )
        self._settled = Counter(
            "evalpool_router_holds_settled_total",
            "Holds that the ledger has captured from, or released because nothing was used; lost: "
            "what was charged could not be captured before the hold expired.",
            ["outcome"],
            registry=registry,
        )
        self._captured = Counter(
            "evalpool_router_captured_units_total",
            "Units captured from holds.",
            registry=registry,
        )
        self._lost = Counter(
            "evalpool_router_lost_units_total",
            "Units charged that could not be captured before the hold expired.",
            registry=registry,
        )
        self._pending = Gauge(
            "evalpool_router_captures_pending",
            "Holds whose charge is decided and that the ledger has not yet captured or released.",
            registry=registry,
        )
        for flaw in Flaw:
            self._refused.labels(flaw.value)
        for outcome in ("captured", "released", "lost"):
            self._settled.labels(outcome)

    def refused(self, flaw: Flaw) -> None:
        """Count a request that no hold pays for."""
        self._refused.labels(flaw.value).inc()

    def pending(self, count: int) -> None:
        """Tell how many decisions the ledger has not done."""
        self._pending.set(count)

    def settled(self, charge: Charge, *, lost: bool) -> None:
        """Count a decision that is done, or can no longer be done."""
        self._pending.dec()
        outcome = "lost" if lost else "captured" if charge.quantity else "released"
        self._settled.labels(outcome).inc()
        (self._lost if lost else self._captured).inc(charge.quantity)

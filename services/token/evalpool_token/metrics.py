"""The ledger's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class TokenMetrics:
    """Counts what the ledger does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "evalpool_token_requests_total",
            "Requests carried out or repeated, by kind.",
            ["kind"],
            registry=registry,
        )
        self._expired = Counter(
            "evalpool_token_holds_expired_total",
            "Holds returned to their holders because their time had passed.",
            registry=registry,
        )

    def committed(self, kind: str) -> None:
        """Count a request."""
        self._requests.labels(kind.lower()).inc()

    def expired(self, holds: int) -> None:
        """Count expired holds."""
        self._expired.inc(holds)

"""The ledger's metrics."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter

from evalpool_token.entries import TRANSFER_KINDS, EntryKind


class TokenMetrics:
    """Counts what the ledger does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._transfers = Counter(
            "evalpool_token_transfers_total",
            "Movements of units between owners, by kind; repeats are not counted.",
            ["kind"],
            registry=registry,
        )
        self._holds = Counter(
            "evalpool_token_holds_total",
            "What was done with holds: hold, capture, release or expire.",
            ["kind"],
            registry=registry,
        )

    def committed(self, kinds: Iterable[EntryKind]) -> None:
        """Count entries."""
        for kind in kinds:
            if kind in TRANSFER_KINDS:
                self._transfers.labels(kind.value).inc()
            if kind not in (EntryKind.TRANSFER, EntryKind.MINT, EntryKind.BURN):
                self._holds.labels(kind.value).inc()

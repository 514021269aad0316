"""What the benchmark service counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class BenchmarkMetrics:
    """Counters of decisions and of money sent.

    Attributes:
        fundings: Credits decided, by what became of them.
        refunds: Refunds sent.
        settled: Pools settled, by how.
        waiting: Tries that a peer could not take, by what waits.
        sweeps: When this replica last did a sweep, by name.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.fundings = Counter(
            "evalpool_benchmark_fundings_total",
            "Credits decided, by what became of them.",
            ["state"],
            registry=registry,
        )
        self.refunds = Counter(
            "evalpool_benchmark_refunds_total", "Refunds sent.", registry=registry
        )
        self.settled = Counter(
            "evalpool_benchmark_pools_settled_total",
            "Pools settled, by how: paid or returned.",
            ["state"],
            registry=registry,
        )
        self.waiting = Counter(
            "evalpool_benchmark_waits_total",
            "Tries that another service refused or could not take, by what waits for it.",
            ["what"],
            registry=registry,
        )
        self.sweeps = Gauge(
            "evalpool_benchmark_sweep_timestamp_seconds",
            "When this replica last did a sweep, in seconds since 1970; the replicas take turns.",
            ["name"],
            registry=registry,
        )

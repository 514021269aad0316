"""The metrics that every service has: its calls, after go-grpc-prometheus' names, and its process.

Whatever else a service measures begins with `evalpool_`. No label is by caller, request or prompt.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

# When a series began would be one more series for each, and nobody asks.
disable_created_metrics()  # type: ignore[no-untyped-call]

# Wide enough for a balance (under 1 ms) and a run of a thousand questions on one core.
BUCKETS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
)


class GrpcMetrics:
    """Counts and times the calls of one server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["grpc_type", "grpc_service", "grpc_method"]
        self.started = Counter(
            "grpc_server_started_total", "Calls begun.", labels, registry=registry
        )
        self.handled = Counter(
            "grpc_server_handled_total",
            "Calls ended, by status code.",
            [*labels, "grpc_code"],
            registry=registry,
        )
        self.seconds = Histogram(
            "grpc_server_handling_seconds",
            "From a call's beginning to its end, in seconds.",
            labels,
            registry=registry,
            buckets=BUCKETS,
        )
        self.in_flight = Gauge(
            "evalpool_calls_in_flight", "Calls under way.", labels, registry=registry
        )

    def of(self, kind: str, service: str, method: str) -> MethodMetrics:
        """The series of one method."""
        return MethodMetrics(self, (kind, service, method))


class MethodMetrics:
    """The series of one method: finding them by their labels costs more than counting."""

    def __init__(self, metrics: GrpcMetrics, labels: tuple[str, str, str]) -> None:
        self.started = metrics.started.labels(*labels)
        self.seconds = metrics.seconds.labels(*labels)
        self.in_flight = metrics.in_flight.labels(*labels)
        self._handled = metrics.handled
        self._labels = labels
        self._by_code: dict[str, Counter] = {}

    def handled(self, code: str) -> Counter:
        """Calls that ended with a status code."""
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._handled.labels(*self._labels, code)
        return counter


def new_registry() -> CollectorRegistry:
    """A registry with the process's own metrics."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry

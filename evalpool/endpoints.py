"""Where the services answer, unless told otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

PORTS = {
    "token": 50051,
    "benchmark": 50052,
    "dataset": 50053,
    "router": 50054,
    "worker": 50055,
    "embedding": 50056,
}
"""The services' ports; each one's metrics are at its port + `METRICS_PORT_OFFSET`."""

METRICS_PORT_OFFSET = 4000
HIGHEST_PORT = 2**16 - 1

FURTHER_WORKERS_PORT = 50155
"""The port of the second worker on a host; further ones follow."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints of one deployment, host:port each."""

    token: str = "127.0.0.1:50051"  # noqa: S105
    benchmark: str = "127.0.0.1:50052"
    dataset: str = "127.0.0.1:50053"
    router: str = "127.0.0.1:50054"
    worker: str = "127.0.0.1:50055"
    embedding: str = "127.0.0.1:50056"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Endpoints:
        """The defaults, replaced where EVALPOOL_<SERVICE> names another endpoint."""
        return cls(
            **{
                service: environment[f"EVALPOOL_{service.upper()}"]
                for service in PORTS
                if environment.get(f"EVALPOOL_{service.upper()}")
            }
        )

    def of(self, service: str) -> str:
        """The endpoint of a service by its name."""
        endpoint: str = getattr(self, service)
        return endpoint


def metrics_endpoint(endpoint: str) -> str:
    """Where the metrics of a service are unless told otherwise.

    Args:
        endpoint: Where the service answers, host:port; port 0 stands for a free one.

    Returns:
        The same host at the port + `METRICS_PORT_OFFSET`, port 0 for port 0; empty, for nowhere,
        where there is no such port.
    """
    host, _, port = endpoint.rpartition(":")
    metrics_port = int(port) + METRICS_PORT_OFFSET if int(port) else 0
    return f"{host}:{metrics_port}" if metrics_port <= HIGHEST_PORT else ""

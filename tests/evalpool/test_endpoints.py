"""Where services answer."""

from __future__ import annotations

import pytest

from evalpool.endpoints import PORTS, Endpoints, metrics_endpoint


def test_the_defaults_are_the_contracts_ports() -> None:
    endpoints = Endpoints.from_environment({})
    assert {name: endpoints.of(name) for name in PORTS} == {
        name: f"127.0.0.1:{port}" for name, port in PORTS.items()
    }


@pytest.mark.parametrize("service", PORTS)
def test_the_environment_replaces_one_endpoint(service: str) -> None:
    endpoints = Endpoints.from_environment({f"EVALPOOL_{service.upper()}": "example:1"})
    assert endpoints.of(service) == "example:1"
    others = set(PORTS) - {service}
    assert all(endpoints.of(other) == Endpoints().of(other) for other in others)


def test_an_empty_variable_is_none() -> None:
    assert Endpoints.from_environment({"EVALPOOL_TOKEN": ""}) == Endpoints()


@pytest.mark.parametrize(
    ("endpoint", "metrics"),
    [
        ("127.0.0.1:50051", "127.0.0.1:54051"),
        ("[::1]:61535", "[::1]:65535"),
        ("127.0.0.1:61536", ""),
        ("localhost:0", "localhost:0"),
    ],
)
def test_metrics_are_4000_ports_further_on_where_there_is_such_a_port(
    endpoint: str, metrics: str
) -> None:
    assert metrics_endpoint(endpoint) == metrics

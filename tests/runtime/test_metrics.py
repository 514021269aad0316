"""What Prometheus gets from each service, over HTTP."""

from __future__ import annotations

import importlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from evalpool.endpoints import PORTS
from evalpool.identity import Identity
from evalpool.models import ModelStore
from evalpool_runtime.testing import ServiceUnderTest, running

PREFIXES = ("grpc_server_", "evalpool_", "process_", "python_")
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")
ABOUT_SOMEBODY = {"address", "caller", "owner", "prompt", "request_id"}


@pytest.fixture(params=PORTS)
def name(request: pytest.FixtureRequest) -> str:
    service: str = request.param
    return service


@pytest.fixture
async def service(
    name: str, tmp_path: Path, model_store: ModelStore
) -> AsyncIterator[ServiceUnderTest]:
    """A service without its peers, which it measures itself without."""
    peer = Identity.generate().address
    settings: dict[str, dict[str, Any]] = {
        "benchmark": {"token_address": peer, "dataset_address": peer},
        "dataset": {"router_address": peer},
        "embedding": {"models_dir": model_store.root},
        "worker": {"models_dir": tmp_path / "models"},
    }
    definition = importlib.import_module(f"evalpool_{name}.service").SERVICE
    async with running(
        definition, tmp_path, metrics_listen="127.0.0.1:0", **settings.get(name, {})
    ) as made:
        yield made


async def scraped(service: ServiceUnderTest) -> dict[str, Metric]:
    """The metrics by name, as GET /metrics tells them."""
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(f"http://{service.running.metrics_endpoint}/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {each.name: each for each in text_string_to_metric_families(response.text)}


async def get_info(service: ServiceUnderTest, name: str) -> None:
    """Make one call that ends well."""
    method = f"/evalpool.{name}.v1.{name.capitalize()}Service/GetInfo"
    async with service.channel(None) as channel:
        await channel.unary_unary(method)(b"")  # type: ignore[arg-type]


async def test_every_service_counts_and_times_its_calls(
    service: ServiceUnderTest, name: str
) -> None:
    await get_info(service, name)

    samples = [each for metric in (await scraped(service)).values() for each in metric.samples]

    def value(sample: str, **labels: str) -> float:
        labels |= {
            "grpc_type": "unary",
            "grpc_service": f"evalpool.{name}.v1.{name.capitalize()}Service",
            "grpc_method": "GetInfo",
        }
        (found,) = [each.value for each in samples if (each.name, each.labels) == (sample, labels)]
        return found

    assert value("grpc_server_started_total") == 1
    assert value("grpc_server_handled_total", grpc_code="OK") == 1
    assert value("grpc_server_handling_seconds_count") == 1
    assert value("evalpool_calls_in_flight") == 0


async def test_every_services_metrics_have_names_by_the_conventions_and_a_help_text(
    service: ServiceUnderTest, name: str
) -> None:
    await get_info(service, name)

    metrics = await scraped(service)

    assert any(each.startswith(f"evalpool_{name}_") for each in metrics), "it has none of its own"
    for metric in metrics.values():
        assert metric.name.startswith(PREFIXES)
        assert NAME.fullmatch(metric.name)
        assert metric.documentation, metric.name
        if metric.type == "histogram":
            assert metric.name.endswith(("_seconds", "_bytes", "_tokens"))
        for sample in metric.samples:
            assert not sample.name.endswith("_created")
            assert (metric.type == "counter") == sample.name.endswith("_total")
            assert not ABOUT_SOMEBODY & set(sample.labels), sample.name

"""The router as a whole over real gRPC."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc import aio

from evalpool.router.v1 import router_pb2
from tests.router.router_harness import (
    RouterHarness,
    all_of,
    running_router,
    scoring,
)


async def test_at_the_stop_every_stream_ends_with_an_error(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router:
        stub = await router.stub(router.dataset)
        call = stub.ScoreChoices(scoring(10))
        await anext(aiter(call))
        reading = asyncio.create_task(all_of(call))
        router.service.running.runtime.stopping.set()
        with pytest.raises(aio.AioRpcError) as refusal:
            await reading
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_metrics_tell_how_the_herd_stands(router: RouterHarness) -> None:
    await router.worker(slots=3)
    stub = await router.stub(router.dataset)
    await all_of(stub.ScoreChoices(scoring(40)))
    registry = router.service.running.runtime.metrics

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"evalpool_router_{name}", labels)

    assert value("requests_total", method="ScoreChoices") == 1
    assert value("active_requests", method="ScoreChoices") == 0
    assert value("questions_total") == 40
    assert value("computed_tokens_total") == 160
    assert value("stage_seconds_count", method="ScoreChoices", stage="queue") == 1
    assert value("stage_seconds_count", method="ScoreChoices", stage="first_result") == 1
    assert value("registrations_total") == 1
    async with asyncio.timeout(30):
        # Gauges are set on the clock's next tick; a call lets the loop get there.
        while value("slots") != 3 or value("busy_slots") or value("running"):
            await stub.GetPricing(router_pb2.GetPricingRequest())
    assert value("workers", state="ready") == 1

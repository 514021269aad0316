"""How the herd stands, as GetStatistics tells it, over real gRPC and by the tests' own clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from grpc import aio

from evalpool.router.v1 import router_pb2
from evalpool_runtime.clock import ManualClock
from tests.router.router_harness import (
    MODEL,
    RouterHarness,
    all_of,
    idle,
    infer,
    running_router,
    scoring,
    someone,
    text_of,
)
from tests.waiting import until

Statistics = router_pb2.GetStatisticsResponse


@pytest.fixture
def clock() -> ManualClock:
    # What callers sign is signed by the machine's clock.
    return ManualClock(datetime.now(UTC))


@pytest.fixture
async def router(tmp_path: Path, clock: ManualClock) -> AsyncIterator[RouterHarness]:
    async with running_router(tmp_path, clock=clock) as harness:
        yield harness


async def once(router: RouterHarness, so: Callable[[Statistics], object]) -> Statistics:
    """The operator's statistics, as soon as something is so."""
    stub = await router.operator()

    async def read() -> Statistics:
        return await stub.GetStatistics(router_pb2.GetStatisticsRequest())

    return await until(read, lambda found: bool(so(found)))


async def test_what_waits_and_runs_is_told_by_model_and_worker(router: RouterHarness) -> None:
    worker = await router.worker(slots=2, models=(MODEL,))
    worker.open.clear()
    stub = await router.stub(router.dataset)
    reading = asyncio.create_task(all_of(stub.ScoreChoices(scoring(200))))
    statistics = await once(router, lambda found: found.busy_slots == 2)
    (model,), (of_worker,) = statistics.models, statistics.worker_details
    assert (statistics.slots, statistics.free_slots) == (2, 0)
    assert (of_worker.slots, of_worker.busy_slots, of_worker.free_slots) == (2, 2, 0)
    assert of_worker.state == router_pb2.WORKER_STATE_READY
    assert (model.digest, model.workers) == (MODEL, 1)
    assert model.queued + model.running == statistics.queued + statistics.running == 200
    assert model.running == of_worker.running == statistics.running > 2
    worker.open.set()
    await reading
    statistics = await idle(router)
    (model,), (of_worker,) = statistics.models, statistics.worker_details
    assert (model.queued, model.running, model.completed, model.failed) == (0, 0, 200, 0)
    assert (of_worker.running, of_worker.completed, of_worker.free_slots) == (0, 200, 2)
    assert statistics.free_slots == 2


async def test_rates_are_what_was_done_divided_by_the_time_since_it_began(
    router: RouterHarness, clock: ManualClock
) -> None:
    first = await router.worker()
    stub = await router.stub(router.dataset)
    await all_of(stub.ScoreChoices(scoring(100)))
    clock.advance(timedelta(seconds=6))
    second = await router.worker()
    await router.admit(first, [router_pb2.WORKER_KIND_EVALUATE])
    await text_of(await someone(router), infer())
    clock.advance(timedelta(seconds=4))
    statistics = await idle(router)
    # Each question took the double 4 tokens, the text 9.
    assert statistics.rate_window.ToTimedelta() == timedelta(seconds=10)
    assert (statistics.completed_per_second, statistics.tokens_per_second) == (10.1, 40.9)
    (model,) = statistics.models
    assert (model.completed_per_second, model.tokens_per_second) == (10.1, 40.9)
    told = {worker.address: worker for worker in statistics.worker_details}
    assert told[first.address].completed_per_second == 10
    assert told[first.address].tokens_per_second == 40
    # A worker's begin when it registered.
    assert told[second.address].completed_per_second == 0.25
    assert told[second.address].tokens_per_second == 2.25


async def test_after_a_minute_rates_are_of_the_last_one(
    router: RouterHarness, clock: ManualClock
) -> None:
    await router.worker()
    stub = await someone(router)
    await text_of(stub, infer())
    clock.advance(timedelta(seconds=40))
    await text_of(stub, infer())
    clock.advance(timedelta(seconds=30, milliseconds=500))
    statistics = await idle(router)
    assert statistics.rate_window.ToTimedelta() == timedelta(seconds=59, milliseconds=500)
    assert statistics.completed_per_second == 1 / 59.5
    clock.advance(timedelta(seconds=30))
    statistics = await idle(router)
    assert (statistics.completed, statistics.completed_per_second) == (2, 0)
    assert statistics.worker_details[0].tokens_per_second == 0


async def test_a_worker_that_fails_rests_for_as_long_as_is_told(
    router: RouterHarness, clock: ManualClock
) -> None:
    worker = await router.worker(slots=2)
    worker.open.clear()
    reading = asyncio.create_task(text_of(await someone(router), infer()))
    await worker.reached.wait()
    await worker.kill()
    statistics = await once(router, lambda found: found.queued)
    (of_worker,), (model,) = statistics.worker_details, statistics.models
    assert of_worker.state == router_pb2.WORKER_STATE_RESTING
    assert of_worker.rest.ToTimedelta() == timedelta(seconds=0.5)
    assert (of_worker.failures_in_a_row, of_worker.free_slots) == (1, 0)
    assert (statistics.workers, statistics.resting_workers, statistics.free_slots) == (1, 1, 0)
    assert (model.queued, model.running) == (1, 0)
    reading.cancel()
    clock.advance(timedelta(seconds=0.5))
    statistics = await once(router, lambda found: not found.queued)
    (of_worker,) = statistics.worker_details
    assert of_worker.state == router_pb2.WORKER_STATE_READY
    assert not of_worker.rest.ToTimedelta()
    assert (of_worker.failures_in_a_row, of_worker.free_slots) == (1, 2)
    assert (statistics.resting_workers, statistics.free_slots) == (0, 2)


async def test_a_worker_that_drains_is_told_so(router: RouterHarness) -> None:
    worker = await router.worker(slots=3)
    operator = await router.operator()
    drained = await operator.DrainWorker(
        router_pb2.DrainWorkerRequest(worker=worker.address, drain=True)
    )
    assert drained.worker.state == router_pb2.WORKER_STATE_DRAINING
    statistics = await idle(router)
    assert (statistics.draining_workers, statistics.resting_workers) == (1, 0)
    assert (statistics.slots, statistics.free_slots) == (3, 0)


async def test_a_model_that_brings_workers_down_is_told_to_rest(
    tmp_path: Path, clock: ManualClock
) -> None:
    async with running_router(tmp_path, clock=clock, crashes=1) as router:
        worker = await router.worker()
        worker.open.clear()
        reading = asyncio.create_task(text_of(await someone(router), infer()))
        await worker.reached.wait()
        await worker.kill()
        with pytest.raises(aio.AioRpcError):
            await reading
        (model,) = (await idle(router)).models
        assert model.rest.ToTimedelta() == timedelta(minutes=1)
        assert model.failed == 1
        clock.advance(timedelta(minutes=1))
        (model,) = (await idle(router)).models
        assert not model.rest.ToTimedelta()


async def test_others_than_the_operator_get_totals_without_models_and_workers(
    router: RouterHarness,
) -> None:
    await router.worker(slots=3)
    stub = await someone(router)
    await text_of(stub, infer())
    await idle(router)
    statistics = await stub.GetStatistics(router_pb2.GetStatisticsRequest())
    assert (statistics.workers, statistics.free_slots, statistics.completed) == (1, 3, 1)
    assert statistics.completed_per_second > 0
    assert not statistics.models
    assert not statistics.worker_details

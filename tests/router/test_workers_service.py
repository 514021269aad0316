"""Registering, admitting and draining workers over real gRPC."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc import aio

from evalpool.identity import Identity
from evalpool.router.v1 import router_pb2
from tests.router.router_harness import (
    RouterHarness,
    all_of,
    assert_complete,
    error_of,
    field_of,
    fields_of,
    idle,
    infer,
    running_router,
    scoring,
    someone,
    text_of,
)
from tests.router.worker_double import ALL_KINDS, WorkerDouble


async def test_a_draining_worker_finishes_and_gets_nothing_new(router: RouterHarness) -> None:
    worker = await router.worker(slots=1)
    worker.open.clear()
    stub = await router.stub(router.dataset)
    reading = asyncio.create_task(all_of(stub.ScoreChoices(scoring(200))))
    await worker.reached.wait()
    operator = await router.operator()
    drained = await operator.DrainWorker(
        router_pb2.DrainWorkerRequest(worker=worker.address, drain=True)
    )
    assert drained.worker.draining
    worker.open.set()
    await idle(router)
    assert len(worker.scored) == 1
    other = await router.worker()
    assert_complete(await reading, 200)
    assert len(worker.scored) == 1
    assert other.scored


async def test_draining_outlasts_a_restart_of_router_and_worker(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router:
        worker = await router.worker()
        operator = await router.operator()
        await operator.DrainWorker(router_pb2.DrainWorkerRequest(worker=worker.address, drain=True))
        identity = worker.identity
    async with running_router(tmp_path) as router, WorkerDouble.new() as worker:
        worker.identity = identity
        response = await worker.register(await router.stub(identity))
        assert response.generation == 2
        operator = await router.operator()
        listed = await operator.ListWorkers(router_pb2.ListWorkersRequest())
        assert [(w.address, w.draining) for w in listed.workers] == [(identity.address, True)]


async def test_only_admitted_workers_join_and_only_for_what_they_are_admitted(
    router: RouterHarness,
) -> None:
    async with WorkerDouble.new() as worker:
        stub = await router.stub(worker.identity)
        with pytest.raises(aio.AioRpcError) as refusal:
            await worker.register(stub)
        assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await router.admit(worker, [router_pb2.WORKER_KIND_CHAT])
        await worker.register(stub)
        listed = await (await router.operator()).ListWorkers(router_pb2.ListWorkersRequest())
        assert list(listed.workers[0].kinds) == [router_pb2.WORKER_KIND_CHAT]
        with pytest.raises(aio.AioRpcError) as refusal:
            await worker.register(stub, kinds=(router_pb2.WORKER_KIND_JUDGE,))
        assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert field_of(refusal.value) == "kinds"
        assert "chat" in (refusal.value.details() or "")
        await router.admit(worker, [])
        with pytest.raises(aio.AioRpcError) as refusal:
            await stub.Heartbeat(router_pb2.HeartbeatRequest(generation=1))
        assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
        listed = await (await router.operator()).ListWorkers(router_pb2.ListWorkersRequest())
        assert not listed.workers


async def test_an_admission_that_grows_holds_at_once_for_what_the_worker_offers(
    router: RouterHarness,
) -> None:
    evaluate, chat, judge = ALL_KINDS
    worker = await router.worker(kinds=(evaluate, chat))
    operator = await router.operator()

    async def taken() -> list[int]:
        listed = await operator.ListWorkers(router_pb2.ListWorkersRequest())
        return list(listed.workers[0].kinds)

    await router.admit(worker, [evaluate])
    assert await taken() == [evaluate]
    await router.admit(worker, [evaluate, chat, judge])
    assert await taken() == [evaluate, chat]
    assert await text_of(await someone(router), infer()) == "Paris."


async def test_a_repeated_registration_keeps_its_generation_and_a_restart_gets_the_next(
    router: RouterHarness,
) -> None:
    worker = await router.unregistered_worker()
    stub = await router.stub(worker.identity)
    assert (await worker.register(stub, instance="a")).generation == 1
    assert (await worker.register(stub, instance="a")).generation == 1
    assert (await worker.register(stub, instance="b")).generation == 2
    with pytest.raises(aio.AioRpcError) as refusal:
        await stub.Heartbeat(router_pb2.HeartbeatRequest(generation=1))
    assert refusal.value.code() is grpc.StatusCode.ABORTED
    assert error_of(refusal.value).reason == "LEASE_LOST"
    assert field_of(refusal.value) == "generation"
    response = await stub.Heartbeat(router_pb2.HeartbeatRequest(generation=2))
    assert not response.draining
    await stub.UnregisterWorker(router_pb2.UnregisterWorkerRequest(generation=2))
    await stub.UnregisterWorker(router_pb2.UnregisterWorkerRequest(generation=2))
    assert (await worker.register(stub, instance="b")).generation == 3


async def test_an_earlier_start_of_a_worker_gets_no_lease_while_a_later_one_has_it(
    router: RouterHarness,
) -> None:
    worker = await router.unregistered_worker()
    stub = await router.stub(worker.identity)
    assert (await worker.register(stub, instance="a")).generation == 1
    assert (await worker.register(stub, instance="b")).generation == 2
    for _ in range(2):
        with pytest.raises(aio.AioRpcError) as refusal:
            await worker.register(stub, instance="a")
        assert refusal.value.code() is grpc.StatusCode.ABORTED
        assert error_of(refusal.value).reason == "LEASE_LOST"
        assert field_of(refusal.value) == "instance"
    await stub.Heartbeat(router_pb2.HeartbeatRequest(generation=2))
    # The later one goes: the earlier one may have its place, and keeps it in turn.
    await stub.UnregisterWorker(router_pb2.UnregisterWorkerRequest(generation=2))
    assert (await worker.register(stub, instance="a")).generation == 3
    with pytest.raises(aio.AioRpcError) as refusal:
        await worker.register(stub, instance="b")
    assert field_of(refusal.value) == "instance"
    assert (await worker.register(stub, instance="c")).generation == 4


async def test_a_lease_that_lapses_takes_the_worker_out(tmp_path: Path) -> None:
    async with running_router(tmp_path, lease_seconds=0.2, heartbeat_seconds=0.05) as router:
        worker = await router.worker()
        stub = await router.stub(worker.identity)
        operator = await router.operator()
        async with asyncio.timeout(30):
            while (await operator.GetStatistics(router_pb2.GetStatisticsRequest())).workers:
                pass
        with pytest.raises(aio.AioRpcError) as refusal:
            await stub.Heartbeat(router_pb2.HeartbeatRequest(generation=1))
        assert error_of(refusal.value).reason == "LEASE_LOST"


async def test_what_a_worker_says_of_itself_is_checked(router: RouterHarness) -> None:
    worker = await router.unregistered_worker()
    stub = await router.stub(worker.identity)
    with pytest.raises(aio.AioRpcError) as refusal:
        await stub.RegisterWorker(
            router_pb2.RegisterWorkerRequest(
                endpoint="nowhere", slots=2000, models=["x"], memory_bytes=-1
            )
        )
    assert fields_of(refusal.value) == {
        "endpoint",
        "kinds",
        "slots",
        "memory_bytes",
        "engine_build",
        "models[0]",
        "instance",
    }
    with pytest.raises(aio.AioRpcError) as refusal:
        await stub.Heartbeat(router_pb2.HeartbeatRequest(generation=1, models=["x"]))
    assert fields_of(refusal.value) == {"models[0]"}
    operator = await router.operator()
    with pytest.raises(aio.AioRpcError) as refusal:
        await operator.AdmitWorker(
            router_pb2.AdmitWorkerRequest(worker="nobody", kinds=[router_pb2.WORKER_KIND_CHAT])
        )
    assert fields_of(refusal.value) == {"worker"}
    with pytest.raises(aio.AioRpcError) as refusal:
        await operator.AdmitWorker(
            router_pb2.AdmitWorkerRequest(
                worker=worker.address, kinds=[router_pb2.WORKER_KIND_UNSPECIFIED]
            )
        )
    assert fields_of(refusal.value) == {"kinds"}


async def test_workers_are_listed_page_by_page(router: RouterHarness) -> None:
    addresses = sorted([(await router.worker()).address for _ in range(3)])
    operator = await router.operator()
    first = await operator.ListWorkers(router_pb2.ListWorkersRequest(page_size=2))
    second = await operator.ListWorkers(
        router_pb2.ListWorkersRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [w.address for w in [*first.workers, *second.workers]] == addresses
    assert not second.next_page_token
    for page in (
        router_pb2.ListWorkersRequest(page_size=1001),
        router_pb2.ListWorkersRequest(page_size=-1),
    ):
        with pytest.raises(aio.AioRpcError) as refusal:
            await operator.ListWorkers(page)
        assert fields_of(refusal.value) == {"page_size"}
    with pytest.raises(aio.AioRpcError) as refusal:
        await operator.ListWorkers(router_pb2.ListWorkersRequest(page_token="made up"))
    assert error_of(refusal.value).reason == "INVALID_PAGE_TOKEN"
    assert field_of(refusal.value) == "page_token"


async def test_others_than_the_operator_see_totals_only(router: RouterHarness) -> None:
    await router.worker(slots=3)
    stub = await someone(router)
    statistics = await stub.GetStatistics(router_pb2.GetStatisticsRequest())
    assert (statistics.workers, statistics.slots) == (1, 3)
    assert not statistics.worker_details
    with pytest.raises(aio.AioRpcError):
        await stub.ListWorkers(router_pb2.ListWorkersRequest())


async def test_only_admitted_workers_can_be_drained(router: RouterHarness) -> None:
    operator = await router.operator()
    unknown = Identity.generate().address
    with pytest.raises(aio.AioRpcError) as refusal:
        await operator.DrainWorker(router_pb2.DrainWorkerRequest(worker=unknown, drain=True))
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    assert error_of(refusal.value).reason == "WORKER_NOT_FOUND"
    assert field_of(refusal.value) == "worker"
    with pytest.raises(aio.AioRpcError) as refusal:
        await operator.DrainWorker(router_pb2.DrainWorkerRequest(worker="x", drain=True))
    assert fields_of(refusal.value) == {"worker"}


async def test_settings_admit_workers_too(tmp_path: Path) -> None:
    worker = WorkerDouble.new()
    async with worker, running_router(tmp_path, admitted_workers=worker.address) as router:
        response = await worker.register(await router.stub(worker.identity))
        assert response.generation == 1

"""Workers that take certain models alone, over real gRPC: doubles, and a real one at a server."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc import aio

from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.models import find_model
from evalpool.router.v1 import router_pb2
from evalpool_runtime.testing import running
from evalpool_worker.service import SERVICE as WORKER
from tests.router.router_harness import (
    MODEL,
    RouterHarness,
    all_of,
    fields_of,
    idle,
    infer,
    running_router,
    scoring,
    someone,
    text_of,
)
from tests.router.worker_double import WorkerDouble
from tests.waiting import until
from tests.worker.engine.scripted_server import MODEL as SERVED
from tests.worker.engine.scripted_server import scripted_server

GEMMA = find_model("gemma-3-270m-q4_k_m").sha256 or ""


async def server_of(router: RouterHarness, model: str, **offer: int) -> WorkerDouble:
    """A worker that takes one model alone, and has it loaded."""
    return await router.worker(models=(model,), only_models=(model,), **offer)


async def assert_nothing_went_wrong(router: RouterHarness) -> None:
    """No request failed, nothing was tried again, and no worker rests."""
    found = await idle(router)
    assert (found.failed, found.resting_workers, found.draining_workers) == (0, 0, 0)
    assert [worker.failed for worker in found.worker_details] == [0] * found.workers
    retried = [
        sample.value
        for metric in router.service.running.runtime.metrics.collect()
        for sample in metric.samples
        if sample.name == "evalpool_router_retries_total"
    ]
    assert retried
    assert not any(retried)


async def test_idle_workers_of_another_model_are_not_asked(router: RouterHarness) -> None:
    worker = await router.worker()
    servers = [await server_of(router, GEMMA) for _ in range(3)]
    for server in servers:
        server.error = (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_FETCH_FAILED")
    stub = await someone(router)
    for _ in range(3):
        assert await text_of(stub, infer()) == "Paris."
    await all_of((await router.stub(router.dataset)).ScoreChoices(scoring(100)))
    assert not any(server.called.is_set() for server in servers)
    assert len(worker.prompted) == 3
    await assert_nothing_went_wrong(router)


async def test_a_dedicated_worker_answers_for_its_model_whatever_memory_it_tells(
    router: RouterHarness,
) -> None:
    server = await server_of(router, MODEL, memory=1)
    small = await router.worker(memory=1)
    assert await text_of(await someone(router), infer()) == "Paris."
    assert (len(server.prompted), len(small.prompted)) == (1, 0)
    await assert_nothing_went_wrong(router)


async def test_default_models_go_to_the_workers_that_take_them(router: RouterHarness) -> None:
    server = await server_of(router, GEMMA)
    worker = await router.worker()
    stub = await someone(router)
    # Infer takes the one that is loaded, Chat and Evaluate the herd's own.
    await text_of(stub, inference_pb2.InferRequest(prompt="Hello"))
    assert [asked.model.digest for asked in server.prompted] == [GEMMA]
    _ = [message async for message in stub.Chat(router_pb2.ChatRequest(question="Where?"))]
    worker.answers = ["7"]
    graded = await stub.Evaluate(
        router_pb2.EvaluateRequest(question="Where?", expected_response="Paris", response="Rome")
    )
    assert graded.provenance.worker == worker.address
    assert [asked.model.digest for asked in worker.prompted] == [MODEL, MODEL]
    assert len(server.prompted) == 1
    await assert_nothing_went_wrong(router)


async def test_a_model_that_only_workers_of_others_could_take_waits_and_says_so(
    tmp_path: Path,
) -> None:
    async with running_router(tmp_path, progress_seconds=0.05) as router:
        server = await server_of(router, GEMMA)
        call = aiter((await someone(router)).Infer(infer()))
        response = await anext(call)
        assert response.progress.reason_code == "NO_WORKER"
        assert "chat serve other models alone; start one" in response.progress.stage
        own = await server_of(router, MODEL)
        rest = [response async for response in call]
        assert rest[-1].complete.provenance.worker == own.address
        assert not server.prompted
        await assert_nothing_went_wrong(router)


async def test_the_operator_sees_which_models_a_worker_is_dedicated_to(
    router: RouterHarness,
) -> None:
    server, worker = await server_of(router, GEMMA), await router.worker()
    found = await (await router.operator()).GetStatistics(router_pb2.GetStatisticsRequest())
    told = {each.address: list(each.only_models) for each in found.worker_details}
    assert told == {server.address: [GEMMA], worker.address: []}
    assert (found.workers, found.free_slots) == (2, found.slots)


async def test_a_worker_is_dedicated_to_64_models_at_most(router: RouterHarness) -> None:
    worker = await router.unregistered_worker()
    stub = await router.stub(worker.identity)
    digests = tuple(f"{number:064x}" for number in range(65))
    assert (await worker.register(stub, only_models=digests[:64])).generation == 1
    for wrong, field in ((digests, "only_models"), (("x",), "only_models[0]")):
        with pytest.raises(aio.AioRpcError) as refusal:
            await worker.register(stub, only_models=wrong)
        assert fields_of(refusal.value) == {field}


async def test_a_worker_at_a_server_tells_the_herd_that_it_takes_its_model_alone(
    router: RouterHarness, tmp_path: Path
) -> None:
    general, key = await router.worker(), Identity.generate()
    operator = await router.operator()
    await operator.AdmitWorker(
        router_pb2.AdmitWorkerRequest(worker=key.address, kinds=[router_pb2.WORKER_KIND_CHAT])
    )

    async def listed() -> list[router_pb2.Worker]:
        found = await operator.ListWorkers(router_pb2.ListWorkersRequest())
        return [worker for worker in found.workers if worker.address == key.address]

    async with (
        scripted_server() as server,
        running(
            WORKER,
            tmp_path / "worker",
            identity=key,
            router_endpoint=router.service.endpoint,
            router_address=router.service.address,
            engine="openai",
            openai_url=server.url,
            openai_model=SERVED,
            openai_digest=GEMMA,
        ),
    ):
        [worker] = await until(listed, bool)
        # How much memory the server has is not known.
        assert (list(worker.only_models), worker.memory_bytes) == ([GEMMA], 0)
        for _ in range(3):
            assert await text_of(await someone(router), infer()) == "Paris."
        assert len(general.prompted) == 3
        await assert_nothing_went_wrong(router)

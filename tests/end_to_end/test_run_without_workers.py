"""A run that nobody can take up, through a real dataset service and a real router."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalpool.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from evalpool.identity import Identity
from evalpool.router.v1 import router_pb2
from evalpool_dataset.service import SERVICE as DATASET
from evalpool_runtime.testing import running
from tests.dataset.dataset_harness import ENDED, lines, sending, start, until
from tests.router.router_harness import MODEL, running_router


@pytest.mark.parametrize("evaluator", ["LOGLIKELIHOOD", "LETTER"])
async def test_a_run_says_which_worker_is_missing_and_goes_on_when_one_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluator: str
) -> None:
    monkeypatch.setattr("evalpool_dataset.wait.TOLD_AFTER_SECONDS", 0.0)
    async with (
        running_router(tmp_path / "router", progress_seconds=0.1) as router,
        running(
            DATASET,
            tmp_path / "dataset",
            identity=router.dataset,
            router_endpoint=router.service.endpoint,
            router_address=router.service.address,
        ) as dataset,
        dataset.channel(Identity.generate()) as channel,
    ):
        chatting = await router.worker(kinds=(router_pb2.WORKER_KIND_CHAT,))
        stub: dataset_pb2_grpc.DatasetServiceAsyncStub
        stub = dataset_pb2_grpc.DatasetServiceStub(channel)
        await stub.CreateDataset(dataset_pb2.CreateDatasetRequest(id="d", kind="siqa"))
        options = dataset_pb2.LoadOptions(dataset="d", format=dataset_pb2.DATA_FORMAT_JSON_LINES)
        await stub.LoadData(sending(options, [lines(20)]))

        by = dataset_pb2.Evaluator.Value(f"EVALUATOR_{evaluator}")
        run = (await start(stub, MODEL, evaluator=by)).run

        waiting = await until(stub, run, reason_code="NO_WORKER")
        assert waiting.state == dataset_pb2.RUN_STATE_QUEUED
        assert "no worker of the herd takes work of the kind evaluate; start one" in waiting.reason
        able = await router.worker()
        ended = await until(stub, run, *ENDED)
        assert (ended.state, ended.done) == (dataset_pb2.RUN_STATE_COMPLETE, 20)
        assert (ended.reason, ended.reason_code) == ("", "")
        assert able.called.is_set()
        assert not chatting.called.is_set()

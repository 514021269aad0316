"""Following a run from the command line."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from evalpool.client import Client
from evalpool.client.datasets import watch_run
from evalpool.dataset.v1 import dataset_pb2
from evalpool.inference.v1 import inference_pb2
from evalpool.wallet import Wallets
from tests.dataset.dataset_harness import MODEL, DatasetHarness, lines, running_dataset
from tests.dataset.router_double import RouterDouble
from tests.evalpool.background import Background
from tests.evalpool.cli.commands import Cli


def test_evaluating_with_wait_tells_what_the_run_waits_for(
    cli: Cli, tmp_path: Path, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalpool_dataset.wait.TOLD_AFTER_SECONDS", 0.0)
    stack = AsyncExitStack()
    told = threading.Event()

    async def begin() -> DatasetHarness:
        router = await stack.enter_async_context(RouterDouble.knowing(MODEL))
        router.open.clear()
        nobody = inference_pb2.ScoreProgress(stage="no worker is there", reason_code="NO_WORKER")
        router.progress = [nobody]
        harness = await stack.enter_async_context(running_dataset(tmp_path / "dataset", router))
        await harness.load(lines(4))
        return harness

    async def come(router: RouterDouble) -> None:
        await asyncio.to_thread(told.wait)
        router.open.set()

    async def watched(client: Client, run: str) -> AsyncIterator[dataset_pb2.Score]:
        async for score in watch_run(client, run):
            yield score
            if score.reason:
                told.set()

    monkeypatch.setattr("evalpool.cli.commands.runs.watch_run", watched)
    harness: DatasetHarness = background.do(begin())
    monkeypatch.setenv("EVALPOOL_DATASET", harness.service.endpoint)
    Wallets().add("owner", tmp_path / "dataset" / "people" / "owner.json")
    coming = background.begin(come(harness.router))

    outcome = cli("dataset", "evaluate", "d", MODEL, "--wait", "-w", "owner")

    coming.result()
    background.do(stack.aclose())
    assert outcome.status == 0, outcome.err
    assert outcome.err == "queued: no worker is there\n"
    assert "4/4" in outcome.out

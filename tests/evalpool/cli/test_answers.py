"""How an answer of the herd is shown that breaks off."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from evalpool.wallet import Wallets
from tests.evalpool.background import Background
from tests.evalpool.cli.commands import Cli
from tests.router.router_harness import MODEL, RouterHarness, running_router
from tests.router.worker_double import WorkerDouble


@pytest.mark.parametrize("command", ["infer", "chat"])
def test_a_text_that_breaks_off_ends_its_line_before_the_failure_is_told(
    cli: Cli,
    home: Path,
    tmp_path: Path,
    background: Background,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    stack = AsyncExitStack()

    async def begin() -> tuple[RouterHarness, WorkerDouble]:
        router = await stack.enter_async_context(running_router(tmp_path / "router"))
        worker = await router.worker()
        worker.free = 1
        worker.open.clear()
        return router, worker

    async def break_off(worker: WorkerDouble) -> None:
        await worker.reached.wait()
        await worker.kill()

    router, worker = background.do(begin())
    monkeypatch.setenv("EVALPOOL_ROUTER", router.service.endpoint)
    Wallets().new("default")
    breaking = background.begin(break_off(worker))

    outcome = cli(command, "Where?", "-m", MODEL)

    breaking.result()
    background.do(stack.aclose())
    assert outcome.out == "Par\n"
    assert outcome.failure.endswith("[WORKER_LOST]")

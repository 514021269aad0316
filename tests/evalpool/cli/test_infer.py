"""`evalpool infer` against a real router."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from evalpool.cli.output import errors
from tests.evalpool.background import Background
from tests.evalpool.cli.commands import Cli
from tests.router.router_harness import MODEL, RouterHarness, running_router, scoring


def test_a_prompt_without_a_worker_tells_once_what_is_missing_and_is_answered_when_one_comes(
    cli: Cli, tmp_path: Path, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = AsyncExitStack()
    told = threading.Event()
    router: RouterHarness = background.do(
        stack.enter_async_context(running_router(tmp_path / "router", progress_seconds=0.02))
    )
    prints = errors.print

    def printing(sentence: str, **style: Any) -> None:
        prints(sentence, **style)
        told.set()

    async def come() -> None:
        await asyncio.to_thread(told.wait)
        # Somebody else hears thrice meanwhile how it stands.
        call = aiter((await router.stub(router.dataset)).ScoreChoices(scoring(1)))
        for _ in range(3):
            await anext(call)
        await router.worker()

    monkeypatch.setattr(errors, "print", printing)
    monkeypatch.setenv("EVALPOOL_ROUTER", router.service.endpoint)
    cli("wallet", "new", "somebody")
    coming = background.begin(come())

    outcome = cli("infer", "The capital of France is", "-m", MODEL, "-w", "somebody")

    coming.result()
    background.do(stack.aclose())
    assert outcome.status == 0, outcome.err
    assert outcome.out == "Paris.\n"
    assert outcome.err.count("no worker of the herd takes work of the kind chat; start one") == 1

"""`evalpool judge` against a real router."""

from __future__ import annotations

import asyncio
import hashlib
import io
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from evalpool.cli.commands import judge
from evalpool.cli.output import errors
from evalpool.router.v1 import router_pb2
from evalpool.wallet import Wallets
from tests.evalpool.background import Background
from tests.evalpool.cli.commands import Cli
from tests.router.router_harness import MODEL, RouterHarness, running_router


@pytest.fixture
def router(
    home: Path, tmp_path: Path, background: Background, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RouterHarness]:
    """A router that the commands find, and a wallet."""
    stack = AsyncExitStack()
    made: RouterHarness = background.do(
        stack.enter_async_context(running_router(tmp_path / "router"))
    )
    monkeypatch.setenv("EVALPOOL_ROUTER", made.service.endpoint)
    Wallets().new("default")
    yield made
    background.do(stack.aclose())


def test_a_grade_is_shown_with_what_gave_it(
    cli: Cli, router: RouterHarness, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = background.do(router.worker())
    worker.answers = ["8"]
    told = cli("judge", "Where?", "Paris", "It is Paris.", "--seed", "5").out
    rows = dict(line.strip().split(maxsplit=1) for line in told.splitlines())
    assert rows["grade"] == "8 of 10"
    assert (rows["answer"], rows["judge"], rows["seed"]) == ("It is Paris.", MODEL, "5")
    assert rows["worker"] == worker.address
    assert rows["engine"] == "double 1"
    graded = cli("judge", "Where?", "Paris", "", "-o", "json").json
    assert (graded["score"], graded["response"]) == (8, "")
    # Without an answer the herd's own is graded, which is "8" here.
    assert cli("judge", "Where?", "Paris", "-o", "json").json["response"] == "8"
    monkeypatch.setattr("sys.stdin", io.StringIO("From a pipe."))
    assert cli("judge", "Where?", "Paris", "-", "-o", "json").json["response"] == "From a pipe."

    async def prompt() -> str:
        stub = await router.stub(None)
        return str((await stub.GetInfo(router_pb2.GetInfoRequest())).judge_prompt)

    digest = hashlib.sha256(background.do(prompt()).encode()).hexdigest()
    assert rows["prompt"] == graded["prompt_digest"] == digest


def test_while_no_judge_is_there_it_says_so(
    cli: Cli, router: RouterHarness, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "TELL_SECONDS", 0.02)
    told = threading.Event()
    prints = errors.print

    def printing(sentence: str, **style: Any) -> None:
        prints(sentence, **style)
        told.set()

    async def come() -> None:
        await asyncio.to_thread(told.wait)
        await router.worker(kinds=(router_pb2.WORKER_KIND_CHAT,))
        told.clear()
        await asyncio.to_thread(told.wait)
        (await router.worker(kinds=(router_pb2.WORKER_KIND_JUDGE,))).answers = ["8"]

    monkeypatch.setattr(errors, "print", printing)
    coming = background.begin(come())
    outcome = cli("judge", "Where?", "Paris", "London")
    coming.result()
    assert "8 of 10" in outcome.out
    first, second, *_ = outcome.err.splitlines()
    assert first == "waiting for a judge: the herd has no worker"
    assert second.endswith(
        "1 questions and requests wait, 4 of 4 slots are free; is a worker admitted for judging?"
    )


def test_what_cannot_be_graded_is_one_line(
    cli: Cli, router: RouterHarness, background: Background
) -> None:
    worker = background.do(router.worker())
    for arguments, reason in (
        (("", "Paris", "London"), "INVALID_FIELD"),
        (("Where?", "", "London"), "INVALID_FIELD"),
        (("x" * 2**20, "Paris", "London"), "INVALID_FIELD"),
        (("Where?", "Paris", "London", "--model", "nobody's"), "MODEL_NOT_FOUND"),
        (("Where?", "Paris", "London", "--seed", str(2**32 - 1)), "INVALID_FIELD"),
        (("Where?", "Paris", "London"), "ENGINE_FAILED"),
    ):
        assert cli("judge", *arguments).failure.endswith(f"[{reason}]"), reason
    assert len(worker.prompted) == 1

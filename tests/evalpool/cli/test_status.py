"""`evalpool status` with a real router: what waits, runs and rests, in all and one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evalpool.router.v1 import router_pb2
from evalpool.wallet import Wallets
from tests.evalpool.background import Background
from tests.evalpool.cli.commands import Cli
from tests.router.router_harness import (
    MODEL,
    RouterHarness,
    all_of,
    idle,
    running_router,
    scoring,
)
from tests.router.worker_double import WorkerDouble
from tests.waiting import until

NAME = "SmolLM2-135M-Instruct.Q4_1"


@pytest.fixture
def router(
    home: Path, tmp_path: Path, background: Background, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RouterHarness]:
    """A router that the commands find, whose operator the wallet "operator" is."""
    running = running_router(tmp_path / "router")
    made: RouterHarness = background.do(running.__aenter__())
    monkeypatch.setenv("EVALPOOL_ROUTER", made.service.endpoint)
    Wallets().add("operator", tmp_path / "router" / "keys" / "operator.json")
    yield made
    background.do(running.__aexit__(None, None, None))


def row_of(table: str, beginning: str) -> list[str]:
    """The words of the row that begins so."""
    (row,) = [line for line in table.splitlines() if line.strip().startswith(beginning)]
    return row.split()


async def busy_worker(router: RouterHarness) -> WorkerDouble:
    """A worker with both of its slots taken by questions that it does not answer yet."""
    worker = await router.worker(slots=2, models=(MODEL,))
    worker.open.clear()
    return worker


async def both_slots_taken(router: RouterHarness) -> None:
    operator = await router.operator()

    async def read() -> int:
        return (await operator.GetStatistics(router_pb2.GetStatisticsRequest())).busy_slots

    await until(read, lambda busy: busy == 2)


async def score(router: RouterHarness, count: int) -> None:
    await all_of((await router.stub(router.dataset)).ScoreChoices(scoring(count)))


def test_what_waits_and_runs_is_shown_by_model_and_worker(
    cli: Cli, router: RouterHarness, background: Background
) -> None:
    worker = background.do(busy_worker(router))
    scored = background.begin(score(router, 200))
    background.do(both_slots_taken(router))

    herd = cli("status", "-w", "operator", "-o", "json").json["herd"]
    out = cli("status", "-w", "operator").out

    running = herd["models"][0]["running"]
    assert herd["models"][0]["digest"] == MODEL
    assert int(herd["models"][0]["queued"]) + int(running) == 200
    (told,) = herd["worker_details"]
    assert (told["state"], told["busy_slots"], told["free_slots"]) == ("WORKER_STATE_READY", 2, 0)
    assert "1 ready, 0 resting, 0 draining" in out
    assert "2 busy of 2, 0 free" in out
    assert row_of(out, NAME)[1:] == [herd["queued"], running, "0", "0", "0.0", "0", "1"]
    columns = ["ready", "2", "of", "2", "0", running, "0", "0", "0.0", "0", NAME]
    assert row_of(out, worker.address[:10])[1:] == [worker.endpoint, *columns]
    worker.open.set()
    scored.result()


def test_rates_are_shown_in_all_and_one_by_one(
    cli: Cli, router: RouterHarness, background: Background
) -> None:
    worker = background.do(router.worker())
    background.do(score(router, 100))
    background.do(idle(router))

    herd = cli("status", "-w", "operator", "-o", "json").json["herd"]
    out = cli("status", "-w", "operator").out

    assert herd["completed_per_second"] > 0
    assert herd["tokens_per_second"] == pytest.approx(4 * herd["completed_per_second"])
    _, queued, running, done, failed, rate, tokens, workers = row_of(out, NAME)
    assert (queued, running, done, failed, workers) == ("0", "0", "100", "0", "1")
    assert float(tokens) > float(rate) > 0
    assert float(row_of(out, worker.address[:10])[10]) > 0
    assert " tokens a second, over " in out


def test_others_than_the_operator_are_shown_the_whole_alone(
    cli: Cli, router: RouterHarness, background: Background
) -> None:
    worker = background.do(router.worker(slots=3))
    background.do(score(router, 10))
    background.do(idle(router))
    cli("wallet", "new", "someone")
    out = cli("status", "-w", "someone").out
    assert "0 busy of 3, 3 free" in out
    assert worker.address[:10] not in out
    assert NAME not in out

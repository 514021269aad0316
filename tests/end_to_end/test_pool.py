"""A funded pool through six real processes, killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from evalpool.models import ModelStore
from tests.end_to_end.conftest import ROOT, Deployment, free_ports, share_models, start, stop


def as_json(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


def pids(deployment: Deployment, service: str) -> list[int]:
    """The processes that run a service of this deployment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "serve" in words and service in words and str(deployment.data / service) in words:
            found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killing_every_service_in_turn_costs_nothing(deployment: Deployment) -> None:
    run = deployment.evalpool
    run("wallet", "new", "funder")
    run("wallet", "new", "trainer")
    run("token", "mint", "funder", "1000")
    run("dataset", "create", "everyday", "--wallet", "funder")
    run("dataset", "load", "everyday", str(ROOT / "samples/everyday.jsonl"), "--wallet", "funder")
    pool = as_json(
        run("pool", "create", "everyday", "1000", "--duration", "PT20S", "--wallet", "funder",
            "-o", "json")
    )["pool"]  # fmt: skip
    entry = as_json(
        run("pool", "join", pool, "SmolLM2-135M-Instruct.Q4_1", "--wallet", "trainer", "-o", "json")
    )["id"]

    for service in ("benchmark", "dataset", "router", "worker", "token"):
        for pid in pids(deployment, service):
            os.kill(pid, signal.SIGKILL)

    ended = as_json(run("pool", "entry", entry, "--watch", "--wallet", "trainer", "-o", "json"))
    assert (ended["state"], ended["done"]) == ("ENTRY_STATE_SCORED", 156)
    run("pool", "leaderboard", pool, "--watch", "--wallet", "trainer")
    shown = as_json(run("pool", "show", pool, "--wallet", "trainer", "-o", "json"))
    assert shown["pool"]["state"] == "POOL_STATE_PAID"
    assert [payout["quantity"] for payout in shown["payouts"]] == ["1000"]
    assert run("token", "balance", "--wallet", "trainer").stdout.strip() == "1000"
    assert run("token", "balance", "--wallet", "funder").stdout.strip() == "0"


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_sigterm_stops_everything_and_a_second_start_finds_what_was_there(
    tmp_path: Path, model_store: ModelStore, smollm2_path: Path
) -> None:
    data, ports = tmp_path / "data", free_ports()
    share_models(data, model_store)
    first = start(data, ports)
    first.evalpool("wallet", "new", "funder")
    first.evalpool("token", "mint", "funder", "77")
    assert stop(first) == 0
    assert pids(first, "token") == []

    second = start(data, ports)
    try:
        assert second.evalpool("token", "balance", "--wallet", "funder").stdout.strip() == "77"
    finally:
        assert stop(second) == 0

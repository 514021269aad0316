"""A funded pool through six real processes, killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalpool.models import ModelStore
from evalpool.samples import everyday_questions
from tests.end_to_end.conftest import SMOLLM2
from tests.end_to_end.deployments import (
    EMBEDDING_MODELS,
    Deployment,
    free_ports,
    running,
    share_models,
)


def as_json(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


@pytest.fixture
def deployment(tmp_path: Path, model_store: ModelStore) -> Iterator[Deployment]:
    """Six services to be killed, not those that other tests share."""
    share_models(tmp_path / "data", model_store, SMOLLM2, *EMBEDDING_MODELS)
    # What a killed process had leased is taken over when the lease has lapsed.
    leases = {"EVALPOOL_DATASET_LEASE_SECONDS": "6", "EVALPOOL_BENCHMARK_LEASE_SECONDS": "6"}
    with running(tmp_path / "data", free_ports(), environment=leases) as deployment:
        yield deployment


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killing_every_service_in_turn_costs_nothing(deployment: Deployment) -> None:
    run = deployment.evalpool
    run("wallet", "new", "funder")
    run("wallet", "new", "trainer")
    run("token", "mint", "funder", "1000")
    run("dataset", "create", "everyday", "--wallet", "funder")
    run("dataset", "load", "everyday", str(everyday_questions()), "--wallet", "funder")
    pool = as_json(
        run("pool", "create", "everyday", "1000", "--duration", "PT20S", "--wallet", "funder",
            "-o", "json")
    )["pool"]  # fmt: skip
    entry = as_json(
        run("pool", "join", pool, "SmolLM2-135M-Instruct.Q4_1", "--wallet", "trainer", "-o", "json")
    )["id"]

    for service in ("benchmark", "dataset", "router", "worker", "token"):
        for pid in deployment.children(service):
            os.kill(pid, signal.SIGKILL)

    ended = as_json(run("pool", "entry", entry, "--watch", "--wallet", "trainer", "-o", "json"))
    assert (ended["state"], ended["done"]) == ("ENTRY_STATE_SCORED", 156)
    run("pool", "leaderboard", pool, "--watch", "--wallet", "trainer")
    shown = as_json(run("pool", "show", pool, "--wallet", "trainer", "-o", "json"))
    assert shown["pool"]["state"] == "POOL_STATE_PAID"
    assert [payout["quantity"] for payout in shown["payouts"]] == ["1000"]
    assert run("token", "balance", "--wallet", "trainer").stdout.strip() == "1000"
    assert run("token", "balance", "--wallet", "funder").stdout.strip() == "0"

"""`evalpool demo`, as `make demo` runs it: twice in one data directory."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalpool.models import ModelStore
from tests.end_to_end.conftest import GEMMA, SMOLLM2
from tests.end_to_end.deployments import (
    EMBEDDING_MODELS,
    environment_of,
    free_ports,
    processes_on,
    share_models,
)

QUESTIONS = 156
ENTRIES = 5
MINTED = 1_000_000


def demonstration(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "evalpool", "demo", "--data", str(data), *arguments],
        env=environment_of(data, free_ports()),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def check_the_money(found: dict[str, Any]) -> None:
    """What the accounts have is what was minted, and what changed is what was paid."""
    before, after = found["before"], found["after"]
    assert sum(before.values()) == sum(after.values()) == found["supply"] == MINTED
    rewards = {int(row["reward"]) for row in found["leaderboard"]["rows"]}
    changes = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert changes.pop("funder") == -sum(changes.values()) == -10_000
    assert set(changes) == {"ada", "ben"}
    assert set(changes.values()) <= rewards


@pytest.mark.slow
def test_an_interrupted_demonstration_ends_at_once_and_leaves_no_process(
    tmp_path: Path, model_store: ModelStore
) -> None:
    share_models(tmp_path, model_store, SMOLLM2, GEMMA, *EMBEDDING_MODELS)
    process = subprocess.Popen(
        [sys.executable, "-m", "evalpool", "demo", "--data", str(tmp_path)],
        env=environment_of(tmp_path, free_ports()),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = ""
    while "has loaded" not in said:
        said = process.stderr.readline()
        assert said, "it has ended"

    process.send_signal(signal.SIGINT)

    _, rest = process.communicate(timeout=100)
    assert process.returncode == 130
    assert rest.endswith("error: interrupted; run it again to go on\n")
    assert processes_on(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demonstration_pays_a_pool_out_and_computes_nothing_twice(
    tmp_path: Path, model_store: ModelStore
) -> None:
    share_models(tmp_path, model_store, SMOLLM2, GEMMA, *EMBEDDING_MODELS)

    first = demonstration(tmp_path, "--output", "json")

    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    rows = found["leaderboard"]["rows"]
    assert found["leaderboard"]["final"]
    assert len(rows) == ENTRIES
    assert len({row["participant"] for row in rows}) == 2
    for row in rows:
        assert (row["state"], row["done"], row["total"]) == (
            "ENTRY_STATE_SCORED",
            QUESTIONS,
            QUESTIONS,
        )
        assert 0 < row["score_low"] < row["score"] < row["score_high"] < 1
    assert found["evaluated"] == ENTRIES * QUESTIONS
    check_the_money(found)

    second = demonstration(tmp_path)

    assert second.returncode == 0, second.stderr
    assert "all answers were known, and none was asked for again" in second.stderr
    table, _, balances = second.stdout.partition("Balances")
    for row in rows:
        assert row["subject_name"] in table
        assert f"{row['score_low']:.3f}–{row['score_high']:.3f}" in table
        assert f"{row['correct']}/{QUESTIONS}" in table
    assert re.search(r"funder +990,000 +980,000 +-10,000", balances)
    assert re.search(r"ada +\d,\d{3} +\d+,\d{3} +\+\d,\d{3}", balances)
    assert f"sum of balances {MINTED:,} = minted {MINTED:,}" in balances

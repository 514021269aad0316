"""`evalpool pool` against a whole deployment, from the money to the payout."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from evalpool.models import find_model
from tests.end_to_end.conftest import SMOLLM2
from tests.evalpool.cli.commands import Cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def dataset(cli: Cli, questions: Path) -> str:
    """A dataset of twelve questions by the wallet "funder", which has 1,000 units."""
    cli("wallet", "new", "funder")
    cli("wallet", "new", "trainer")
    cli("token", "mint", "funder", "1000")
    name = f"pools-{uuid4().hex[:8]}"
    cli("dataset", "create", name, "--title", "Twelve", "-w", "funder")
    cli("dataset", "load", name, str(questions), "-w", "funder")
    return name


def test_a_pool_is_funded_topped_up_entered_watched_and_paid(cli: Cli, dataset: str) -> None:
    trainer = cli("wallet", "address", "trainer").out.strip()
    terms = ("--duration", "PT10S", "--title", "Who knows?", "-w", "funder")
    pool = cli("pool", "create", dataset, "600", *terms, "-o", "json").json["pool"]
    assert cli("pool", "add", pool, "100", "-w", "funder").out == f"pool {pool} topped up\n"
    added = cli("pool", "add", pool, "50", "-w", "funder", "-o", "json").json
    assert (added["state"], added["pool"]) == ("FUNDING_STATE_ADDED", pool)
    (listed,) = cli("pool", "list", "--dataset", dataset, "-o", "json").json
    assert (listed["id"], listed["funds"]) == (pool, "750")
    table = cli("pool", "list").out
    assert pool in table
    assert "Who knows?" in table

    joined = cli("pool", "join", pool, SMOLLM2, "-w", "trainer", "-o", "json").json
    entry = joined["id"]
    assert (joined["subject"], joined["total"]) == (find_model(SMOLLM2).sha256, 12)
    ended = cli("pool", "entry", entry, "--watch", "-w", "trainer")
    assert ended.status == 0, ended.err
    assert "scored" in ended.out
    assert "12/12" in ended.out
    shown = cli("pool", "entry", entry, "-w", "trainer", "-o", "json").json
    assert (shown["state"], shown["participant"]) == ("ENTRY_STATE_SCORED", trainer)
    (row,) = cli("pool", "leaderboard", pool, "--live", "-o", "json").json["rows"]
    assert (row["rank"], row["reward"], row["correct"]) == (1, "750", shown["correct"])
    assert row["score_low"] < row["score"] < row["score_high"]
    updated = cli("pool", "leaderboard", pool, "--update").out
    assert f"{shown['correct']}/12" in updated
    before = cli("pool", "show", pool).out
    assert "Payouts, if the pool ended now" in before

    snapshots = cli("pool", "leaderboard", pool, "--watch", "-o", "json").out.splitlines()
    assert json.loads(snapshots[-1])["final"]
    assert " · final" in cli("pool", "leaderboard", pool).out
    (allocated,) = cli("pool", "allocate", pool, "-o", "json").json
    assert (allocated["id"], allocated["state"]) == (pool, "POOL_STATE_PAID")
    assert "paid" in cli("pool", "allocate", pool).out
    after = cli("pool", "show", pool, "-o", "json").json
    assert [each["quantity"] for each in after["contributions"]] == ["600", "100", "50"]
    (payout,) = after["payouts"]
    assert (payout["recipient"], payout["quantity"], payout["entry"]) == (trainer, "750", entry)
    assert payout["transfer"]
    text = cli("pool", "show", pool).out
    assert "Payouts, if" not in text
    assert trainer in text
    assert cli("token", "balance", "trainer").out == "750\n"
    assert cli("token", "balance", "funder").out == "250\n"

    late = cli("pool", "join", pool, SMOLLM2, "-w", "funder").failure
    assert late.endswith("[POOL_CLOSED]")


def test_an_entry_is_followed_withdrawn_and_entered_again(cli: Cli, dataset: str) -> None:
    made = cli("pool", "create", dataset, "100", "-w", "funder").out
    assert made.startswith("pool ")
    assert made.endswith(" created\n")
    pool = made.split()[1]

    followed = cli("pool", "join", pool, SMOLLM2, "--wait", "-w", "trainer")
    assert followed.status == 0, followed.err
    entry = followed.out.split()[1]
    assert "scored" in followed.out
    twice = cli("pool", "join", pool, SMOLLM2, "-w", "trainer").failure
    assert twice.endswith("[ALREADY_ENTERED]")
    assert cli("pool", "withdraw", entry).failure.endswith("[NOT_ALLOWED]")
    gone = cli("pool", "withdraw", entry, "-w", "trainer", "-o", "json").json
    assert gone["state"] == "ENTRY_STATE_WITHDRAWN"
    again = cli("pool", "join", pool, SMOLLM2, "--wait", "-w", "trainer", "-o", "json").json
    assert (again["id"], again["state"]) == (entry, "ENTRY_STATE_SCORED")

    cheat = ("pool", "disqualify", entry, "It knew the answers.")
    assert cli(*cheat, "-w", "trainer").failure.endswith("[NOT_ALLOWED]")
    excluded = cli(*cheat, "-o", "json").json
    assert excluded["state"] == "ENTRY_STATE_DISQUALIFIED"
    assert "It knew the answers." in cli("pool", "leaderboard", pool, "--live").out
    early = cli("pool", "allocate", pool).failure
    assert early.endswith("[POOL_NOT_ENDED]")


def test_the_same_request_id_funds_and_enters_once(cli: Cli, dataset: str) -> None:
    create = ("pool", "create", dataset, "100", "--request-id", "mine", "-w", "funder")
    pools = {cli(*create, "-o", "json").json["pool"] for _ in range(2)}
    assert len(pools) == 1
    join = ("pool", "join", pools.pop(), SMOLLM2, "--request-id", "mine", "-w", "trainer")
    assert len({cli(*join, "-o", "json").json["id"] for _ in range(2)}) == 1
    assert cli("token", "balance", "funder").out == "900\n"


def test_ctrl_c_ends_a_watch_with_status_130(cli: Cli, dataset: str) -> None:
    pool = cli("pool", "create", dataset, "100", "-w", "funder", "-o", "json").json["pool"]
    cli("pool", "leaderboard", pool, "--update")
    watch = subprocess.Popen(
        [sys.executable, "-m", "evalpool", "pool", "leaderboard", pool, "--watch", "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    assert json.loads(watch.stdout.readline())["pool"] == pool

    watch.send_signal(signal.SIGINT)

    _, said = watch.communicate(timeout=60)
    assert (watch.returncode, said) == (130, "interrupted\n")


@pytest.mark.parametrize(
    ("terms", "reason", "said"),
    [
        (("--allocation", "Lottery"), "UNKNOWN_ALLOCATION", "WinnerTakesAll"),
        (("--duration", "1h"), "INVALID_TAG", "X-Duration"),
        (("--ends-at", "2001-01-01T00:00:00Z"), "INVALID_TAG", "X-Ends-At"),
        (("--tie-rule", "coin"), "INVALID_TAG", "X-Tie-Rule"),
    ],
)
def test_money_for_a_pool_that_cannot_be_made_comes_back(
    cli: Cli, dataset: str, terms: tuple[str, ...], reason: str, said: str
) -> None:
    create = ("pool", "create", dataset, "100", *terms, "-w", "funder")

    outcome = cli(*create)
    program = cli(*create, "-o", "json")

    assert outcome.failure.startswith("the units were refunded: X-")
    assert said in outcome.failure
    assert outcome.failure.endswith(f"[{reason}]")
    assert program.error["reason"] == reason
    assert json.loads(program.out)["refund_transfer"]
    assert cli("token", "balance", "funder").out == "1000\n"


def test_what_there_is_not_is_one_line_with_its_reason(cli: Cli, dataset: str) -> None:
    nowhere = "A" * 43
    for command, reason in (
        (("create", "nowhere", "1", "-w", "funder"), "DATASET_NOT_FOUND"),
        (("create", dataset, "1.5", "-w", "funder"), "INVALID_FIELD"),
        (("create", dataset, "2000", "-w", "funder"), "INSUFFICIENT_BALANCE"),
        (("add", nowhere, "1", "-w", "funder"), "POOL_NOT_FOUND"),
        (("show", nowhere), "POOL_NOT_FOUND"),
        (("show", "nonsense"), "INVALID_FIELD"),
        (("join", nowhere, SMOLLM2), "POOL_NOT_FOUND"),
        (("entry", nowhere), "ENTRY_NOT_FOUND"),
        (("entry", nowhere, "--watch"), "ENTRY_NOT_FOUND"),
        (("leaderboard", nowhere), "POOL_NOT_FOUND"),
        (("leaderboard", nowhere, "--watch"), "POOL_NOT_FOUND"),
        (("allocate", nowhere), "POOL_NOT_FOUND"),
        (("withdraw", nowhere), "ENTRY_NOT_FOUND"),
    ):
        assert cli("pool", *command).failure.endswith(f"[{reason}]"), command
        assert cli("pool", *command, "-o", "json").error["reason"] == reason, command

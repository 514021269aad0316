"""A whole deployment whose router has prices: evaluations, a pool, and what they cost."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalpool.models import ModelStore
from evalpool.samples import everyday_questions
from evalpool.wallet import Wallets
from tests.end_to_end.conftest import SMOLLM2
from tests.end_to_end.deployments import (
    EMBEDDING_MODELS,
    Deployment,
    free_ports,
    running,
    share_models,
)
from tests.evalpool.cli.commands import Cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PRICES = {"EVALPOOL_ROUTER_BASE_FEE": "3", "EVALPOOL_ROUTER_TOKEN_FEE": "1"}
FUNDS = 600
FILLED = 1_000_000


@pytest.fixture
def deployment(tmp_path: Path, model_store: ModelStore) -> Iterator[Deployment]:
    """The six services; inference costs something."""
    data = tmp_path / "data"
    share_models(data, model_store, SMOLLM2, *EMBEDDING_MODELS)
    with running(data, free_ports(), environment=PRICES) as deployment:
        yield deployment


@pytest.fixture
def dataset(cli: Cli, questions: Path) -> str:
    """A dataset of twelve questions by the wallet "funder"."""
    cli("wallet", "new", "funder")
    cli("wallet", "new", "trainer")
    cli("token", "mint", "funder", str(FUNDS))
    cli("dataset", "create", "twelve", "-w", "funder")
    cli("dataset", "load", "twelve", str(questions), "-w", "funder")
    return "twelve"


def account(cli: Cli, party: str) -> tuple[int, int]:
    """What somebody has, and what of it is held."""
    found = cli("token", "balance", party, "-w", "operator", "-o", "json").json
    return int(found["balance"]), int(found["held"])


def settled(cli: Cli) -> int:
    """What the dataset service's account has, once nothing of it is held."""
    while (found := account(cli, "dataset"))[1]:
        pass
    return found[0]


def test_a_pool_whose_evaluation_costs_something_waits_for_the_account_and_pays_its_funds_whole(
    cli: Cli, dataset: str, deployment: Deployment
) -> None:
    assert "3 units" in cli("pricing").out
    terms = ("--duration", "PT30S", "-w", "funder")
    pool = cli("pool", "create", dataset, str(FUNDS), *terms, "-o", "json").json["pool"]
    entry = cli("pool", "join", pool, SMOLLM2, "-w", "trainer", "-o", "json").json["id"]
    shown = ("pool", "entry", entry, "-w", "trainer", "-o", "json")
    while (waiting := cli(*shown).json)["reason_code"] != "HOLD_REFUSED":
        assert waiting["state"] in ("ENTRY_STATE_SUBMITTED", "ENTRY_STATE_QUEUED")
    assert waiting["state"] == "ENTRY_STATE_QUEUED"
    assert "has 0 units where" in waiting["reason"]

    cli("token", "mint", "dataset", str(FILLED))
    # It would be tried again in a minute; this is sooner.
    cli("pool", "withdraw", entry, "-w", "trainer")
    joined = cli("pool", "join", pool, SMOLLM2, "--wait", "-w", "trainer", "-o", "json").json
    assert (joined["state"], joined["done"]) == ("ENTRY_STATE_SCORED", 12)
    cli("pool", "leaderboard", pool, "--watch", "-o", "json")

    cost = FILLED - settled(cli)
    assert cost > 3 + 12
    assert account(cli, "router") == (cost, 0)
    assert account(cli, "trainer") == (FUNDS, 0)
    supply = int(cli("token", "info", "-o", "json").json["total_supply"])
    assert supply == FUNDS + FILLED
    # What the router has earned goes back by its own key.
    Wallets().add("earnings", deployment.data / "keys" / "router.json")
    cli("token", "transfer", "dataset", str(cost), "-w", "earnings")
    assert account(cli, "dataset") == (FILLED, 0)


def test_a_run_of_letters_is_paid_a_question_at_a_time_and_the_same_again_costs_nothing(
    cli: Cli, dataset: str
) -> None:
    asked = ("dataset", "evaluate", dataset, SMOLLM2, "--evaluator", "letter", "-w", "funder")
    unfunded = cli(*asked, "--wait", "-o", "json")
    assert json.loads(unfunded.out)["state"] == "RUN_STATE_UNFUNDED"
    assert unfunded.error["reason"] == "HOLD_REFUSED"
    assert unfunded.error["error"].startswith("the run stands still: inference is paid, and the ")

    cli("token", "mint", "dataset", str(FILLED))
    run = cli(*asked, "--wait", "-o", "json").json
    assert (run["state"], run["done"]) == ("RUN_STATE_COMPLETE", 12)
    cost = FILLED - settled(cli)
    assert cost > 12 * 3
    assert account(cli, "router") == (cost, 0)

    assert cli(*asked, "--wait", "-o", "json").json["run"] == run["run"]
    assert account(cli, "dataset") == (FILLED - cost, 0)


def test_a_router_that_is_killed_in_the_middle_costs_no_question_and_takes_nothing_twice(
    cli: Cli, dataset: str, deployment: Deployment, tmp_path: Path
) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text("\n".join(everyday_questions().read_text().splitlines()[:48]) + "\n")
    cli("dataset", "load", dataset, str(more), "-w", "funder")
    cli("token", "mint", "dataset", str(FILLED))
    asked = ("dataset", "evaluate", dataset, SMOLLM2, "--evaluator", "letter", "-w", "funder")
    run = cli(*asked, "-o", "json").json["run"]
    score = ("dataset", "score", run, "-w", "funder", "-o", "json")
    while not (standing := cli(*score).json)["done"]:
        assert standing["state"] in ("RUN_STATE_QUEUED", "RUN_STATE_RUNNING")
    assert standing["done"] < standing["total"]
    (router,) = deployment.children("router")
    os.kill(router, signal.SIGKILL)

    ended = cli(*score, "--watch").json

    assert (ended["state"], ended["done"]) == ("RUN_STATE_COMPLETE", ended["total"])
    cost = FILLED - settled(cli)
    # The fee of each question's own request, at least.
    assert cost > 3 * ended["total"]
    assert account(cli, "router") == (cost, 0)

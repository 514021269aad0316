"""`evalpool wallet`, `token` and `status` against a whole deployment."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalpool.endpoints import PORTS
from tests.end_to_end.deployments import Deployment
from tests.evalpool.cli.commands import Cli

pytestmark = pytest.mark.slow


def test_every_service_is_shown_with_its_endpoint_address_and_state(
    cli: Cli, deployment: Deployment
) -> None:
    found = cli("status", "-o", "json").json
    table = cli("status")

    assert [each["service"] for each in found["services"]] == list(PORTS)
    for each in found["services"]:
        assert each["state"] == "serving"
        assert each["endpoint"] == f"127.0.0.1:{deployment.ports[each['service']]}"
        assert each["address"] in table.out
        assert each["endpoint"] in table.out
    assert (found["herd"]["workers"], found["herd"]["worker_details"]) == (1, [])
    assert "0 busy of 16" in table.out
    assert table.status == 0


def test_the_operator_sees_each_worker(cli: Cli, deployment: Deployment) -> None:
    (worker,) = cli("status", "-w", "operator", "-o", "json").json["herd"]["worker_details"]
    assert worker["endpoint"] == f"127.0.0.1:{deployment.ports['worker']}"
    assert worker["endpoint"] in cli("status", "-w", "operator").out.partition("rate")[2]


def test_a_service_that_is_not_reached_is_shown_beside_the_others(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALPOOL_ROUTER", "127.0.0.1:1")
    found = cli("status", "-o", "json").json
    states = {each["service"]: each["state"] for each in found["services"]}
    assert states.pop("router") == "not reached"
    assert set(states.values()) == {"serving"}
    assert found["herd"] is None
    assert "not reached" in cli("status").out


def test_units_are_minted_sent_and_shown(cli: Cli) -> None:
    cli("wallet", "new", "alice")
    bob = cli("wallet", "new", "bob", "-o", "json").json["address"]
    supply = int(cli("token", "info", "-o", "json").json["total_supply"])

    minted = cli("token", "mint", "alice", "50", "-o", "json").json
    assert minted["transfer"]["quantity"] == "50"
    assert int(minted["total_supply"]) == supply + 50
    assert cli("token", "mint", "alice", "5").out.startswith("minted 5 for ")
    sent = cli("token", "transfer", "bob", "20", "-t", "X-For=tea", "-w", "alice")
    assert sent.out.startswith(f"transferred 20 to {bob}\n")
    back = cli("token", "transfer", "alice", "1", "-w", "bob", "-o", "json").json
    assert back["balance"] == "19"

    assert cli("token", "balance", "alice").out == "36\n"
    assert cli("token", "balance", "-w", "bob", "-o", "json").json["balance"] == "19"
    assert f"supply        {supply + 55}" in cli("token", "info").out
    history = cli("token", "history", "-w", "alice", "-o", "json").json
    assert [each["quantity"] for each in history] == ["1", "20", "5", "50"]
    table = cli("token", "history", "-w", "alice").out
    assert all(shown in table for shown in ("-20", "+50", "the mint", "X-For=tea"))


def test_a_bearer_token_is_printed_alone_or_with_its_audience(
    cli: Cli, deployment: Deployment, home: Path
) -> None:
    services = cli("status", "-o", "json").json["services"]
    address = next(each["address"] for each in services if each["service"] == "benchmark")
    printed = cli("wallet", "token", "--for", "benchmark").out
    made = cli("wallet", "token", "--for", "benchmark", "-o", "json").json
    assert printed.count(".") == 2
    assert printed.count("\n") == 1
    assert made["audience"] == address
    assert [each["name"] for each in cli("wallet", "list", "-o", "json").json] == [
        "default",
        "operator",
    ]
    assert cli("wallet", "address", "-o", "json").json["name"] == "default"


@pytest.mark.parametrize(
    ("quantity", "status"),
    [("1.5", 1), ("1e3", 1), ("0", 1), ("", 1), (" 1", 1), ("9" * 40, 1), ("-3", 2)],
)
def test_what_is_no_quantity_is_refused_in_one_line_and_changes_nothing(
    cli: Cli, quantity: str, status: int
) -> None:
    cli("wallet", "new", "alice")
    cli("token", "mint", "operator", "10")
    before = cli("token", "balance", "operator").out

    outcome = cli("token", "transfer", "alice", quantity, "-w", "operator")

    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (status, "", 1)
    assert outcome.err.startswith("error: quantity: " if status == 1 else "error: No such option")
    assert cli("token", "balance", "operator").out == before


def test_what_the_ledger_refuses_is_one_line_with_its_reason(cli: Cli) -> None:
    cli("wallet", "new", "alice")
    cli("wallet", "new", "bob")
    failure = cli("token", "transfer", "bob", "1", "-w", "alice").failure
    assert failure.endswith("[INSUFFICIENT_BALANCE]")
    error = cli("token", "transfer", "bob", "1", "-w", "alice", "-o", "json").error
    assert (error["reason"], error["metadata"]) == (
        "INSUFFICIENT_BALANCE",
        {"balance": "0", "required": "1"},
    )
    assert cli("token", "mint", "bob", "1", "-w", "alice").failure.endswith("[NOT_ALLOWED]")
    assert "evalpool wallet new carol" in cli("token", "history", "-w", "carol").failure

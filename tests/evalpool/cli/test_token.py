"""`evalpool token` against a real ledger."""

from __future__ import annotations

from evalpool.wallet import Wallets
from evalpool_runtime.testing import ServiceUnderTest
from tests.evalpool.cli.commands import Cli


def test_the_ledger_is_shown(cli: Cli, token: ServiceUnderTest) -> None:
    found = cli("token", "info", "-o", "json").json
    assert found["info"]["address"] == token.address
    assert found["total_supply"] == "0"
    assert token.address in cli("token", "info").out


def test_minted_units_are_transferred_with_tags_and_shown_in_the_history(
    cli: Cli, token: ServiceUnderTest
) -> None:
    cli("wallet", "new", "alice")
    cli("wallet", "new", "bob")
    assert cli("token", "mint", "alice", "100").out.startswith("minted 100 for ")

    sent = cli("token", "transfer", "bob", "30", "-t", "X-A=b=c", "-w", "alice", "-o", "json").json

    assert sent["balance"] == "70"
    assert sent["transfer"]["tags"] == [{"name": "X-A", "value": "b=c"}]
    assert cli("token", "balance", "-w", "bob").out == "30\n"
    history = cli("token", "history", "-w", "alice", "-o", "json").json
    assert [each["quantity"] for each in history] == ["30", "100"]
    table = cli("token", "history", "-w", "alice").out
    assert "-30" in table
    assert "+100" in table
    assert "X-A=b=c" in table
    assert "the mint" in table


def test_a_wallet_sees_its_own_balance_whoever_signs(cli: Cli, token: ServiceUnderTest) -> None:
    cli("wallet", "new", "alice")
    cli("token", "mint", "alice", "100")
    assert cli("token", "balance", "alice").out == "100\n"
    assert cli("token", "balance", "alice", "-o", "json").json["balance"] == "100"
    address = Wallets().get("alice").address
    assert cli("token", "balance", address, "-w", "operator").out == "100\n"
    assert "only the operator" in cli("token", "balance", address).failure


def test_units_are_minted_and_sent_to_a_service_by_its_name(
    cli: Cli, token: ServiceUnderTest
) -> None:
    cli("token", "mint", "operator", "5")
    sent = cli("token", "transfer", "token", "2", "-w", "operator", "-o", "json").json
    assert sent["transfer"]["recipient"] == token.address
    minted = cli("token", "mint", "token", "3", "-o", "json").json
    assert minted["transfer"]["recipient"] == token.address


def test_the_same_request_id_happens_once(cli: Cli, token: ServiceUnderTest) -> None:
    for _ in range(2):
        cli("token", "mint", "operator", "5", "--request-id", "once")
    assert cli("token", "balance", "-w", "operator").out == "5\n"
    failure = cli("token", "mint", "operator", "6", "--request-id", "once").failure
    assert failure.endswith("]")


def test_refusals_are_one_line_with_the_reason(cli: Cli, token: ServiceUnderTest) -> None:
    address = Wallets().new("bob").address
    assert "[INSUFFICIENT_BALANCE]" in cli("token", "transfer", "bob", "1").failure
    assert "quantity" in cli("token", "transfer", address, "1.5").failure
    assert "is no address" in cli("token", "transfer", "carol", "1").failure
    assert 'has no "="' in cli("token", "transfer", "bob", "1", "-t", "X-A").failure
    assert "`evalpool wallet list`" in cli("token", "balance", "carol").failure
    assert "the operator" in cli("token", "mint", "bob", "1", "-w", "bob").failure
    assert "evalpool wallet new carol" in cli("token", "balance", "-w", "carol").failure

"""`evalpool wallet`, with a real token service where one is needed."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

from evalpool.identity import Identity
from evalpool.wallet import AddressBook, Wallets
from evalpool_runtime.authentication import Authenticator
from evalpool_runtime.clock import SystemClock
from evalpool_runtime.testing import ServiceUnderTest
from tests.evalpool.cli.commands import Cli


def test_a_new_wallet_is_printed_and_kept(cli: Cli, home: Path) -> None:
    made = cli("wallet", "new", "alice", "-o", "json").json
    assert made == {"name": "alice", "address": Wallets(home).get("alice").address}
    assert stat.S_IMODE((home / "wallets" / "alice.json").stat().st_mode) == 0o600


def test_a_taken_name_is_refused(cli: Cli) -> None:
    first = cli("wallet", "new", "alice", "-o", "json").json
    assert "already" in cli("wallet", "new", "alice").failure
    assert cli("wallet", "address", "alice").out == f"{first['address']}\n"


def test_a_name_that_is_none_is_refused(cli: Cli) -> None:
    assert "no wallet name" in cli("wallet", "new", "../alice").failure


def test_wallets_are_listed_in_order(cli: Cli) -> None:
    for name in ("bob", "alice"):
        cli("wallet", "new", name)
    listed = cli("wallet", "list", "-o", "json").json
    assert [each["name"] for each in listed] == ["alice", "bob"]
    table = cli("wallet", "list").out
    assert all(each["address"] in table for each in listed)


def test_the_whole_line_of_a_new_wallet_is_readable(cli: Cli) -> None:
    out = cli("wallet", "new", "a" * 64).out
    assert out == f"made the wallet {'a' * 64}: {Wallets().get('a' * 64).address}\n"


def test_the_default_wallets_address_is_printed_alone(cli: Cli) -> None:
    out = cli("wallet", "address").out
    assert out == f"{Wallets().get().address}\n"
    assert cli("wallet", "address").out == out


def test_the_environment_chooses_the_wallet(cli: Cli, token: ServiceUnderTest) -> None:
    cli("token", "mint", "operator", "7")
    assert cli("token", "balance", "-w", "operator").out == "7\n"
    assert cli("token", "balance").out == "0\n"


def test_a_bearer_token_for_a_service_is_good_there(cli: Cli, token: ServiceUnderTest) -> None:
    printed = cli("wallet", "token", "--for", "token").out.strip()
    verified = Authenticator(token.address, SystemClock()).verify(printed)
    assert verified.address == Wallets().get().address
    assert AddressBook().get(token.endpoint) == token.address


def test_a_bearer_token_for_an_address_needs_no_server(cli: Cli) -> None:
    server = Identity.generate().address
    made = cli("wallet", "token", "--for", server, "--lifetime", "10", "-o", "json").json
    assert made["audience"] == server
    verified = Authenticator(server, SystemClock()).verify(made["token"])
    assert (verified.expires - datetime.now(UTC)).total_seconds() <= 10


def test_a_bearer_token_for_nobody_is_refused(cli: Cli) -> None:
    failure = cli("wallet", "token", "--for", "tokn").failure
    assert '"tokn" is no address and no service' in failure
    assert "token, benchmark, dataset, router, worker, embedding" in failure


def test_a_server_with_another_key_is_refused_until_it_is_forgotten(
    cli: Cli, token: ServiceUnderTest
) -> None:
    AddressBook().learn(token.endpoint, Identity.generate().address)

    failure = cli("token", "balance").failure
    assert token.address in failure
    assert "evalpool wallet forget" in failure

    assert cli("wallet", "forget", token.endpoint).out == (
        f"forgot the server at {token.endpoint}\n"
    )
    assert cli("token", "balance").out == "0\n"
    forgotten = cli("wallet", "forget", token.endpoint, "-o", "json").json
    assert forgotten == {"endpoint": token.endpoint}


def test_an_unknown_server_cannot_be_forgotten(cli: Cli) -> None:
    assert "nothing to forget" in cli("wallet", "forget", "127.0.0.1:9").failure

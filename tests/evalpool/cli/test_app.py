"""What holds for every command: failures are one line, JSON is JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import grpc
import pytest
import typer
from google.protobuf.timestamp_pb2 import Timestamp

from evalpool import __version__
from evalpool.cli import app as root
from evalpool.cli.failure import Failure
from evalpool.cli.output import as_json, enum_text, moment, print_fields, print_table, short
from evalpool.errors import CallError
from evalpool.identity import InvalidKeyFile
from evalpool.models import ModelError
from evalpool.token.v1 import token_pb2
from evalpool.values import InvalidFields, InvalidValue, Violation
from evalpool.wallet import WalletError
from tests.evalpool.cli.commands import Cli

NEEDS_A_SERVER = [
    ("token", "info"),
    ("token", "balance"),
    ("token", "history"),
    ("token", "transfer", "A" * 43, "1"),
    ("pool", "list"),
    ("pool", "show", "A" * 43),
    ("dataset", "list"),
    ("dataset", "info", "siqa"),
    ("model", "list"),
    ("chat", "hello"),
    ("infer", "hello"),
    ("search", "documents", "hello"),
    ("wallet", "token", "--for", "token"),
]


def commands(group: typer.Typer, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    import evalpool.cli.commands  # noqa: F401 - registers every command

    found = [
        (*path, command.name or command.callback.__name__.replace("_", "-"))
        for command in group.registered_commands
        if command.callback is not None
    ]
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        found += commands(inner.typer_instance, (*path, str(inner.name)))
    return found


@pytest.mark.parametrize("command", commands(root.app), ids=" ".join)
def test_every_command_explains_itself(cli: Cli, command: tuple[str, ...]) -> None:
    outcome = cli(*command, "--help")
    assert outcome.status == 0
    assert outcome.out.lower().startswith("usage: evalpool")
    assert outcome.err == ""


@pytest.mark.parametrize("command", NEEDS_A_SERVER, ids=" ".join)
def test_without_a_server_a_command_says_so_and_what_to_do(
    cli: Cli, command: tuple[str, ...]
) -> None:
    failure = cli(*command).failure
    assert failure.startswith("a service cannot be reached")
    assert "`evalpool up`" in failure


def test_the_status_without_servers_is_no_failure(cli: Cli) -> None:
    found = cli("status", "--output", "json").json
    assert {service["state"] for service in found["services"]} == {"not reached"}
    assert found["herd"] is None


def test_the_version_is_printed(cli: Cli) -> None:
    assert cli("--version").out == f"evalpool {__version__}\n"


@pytest.mark.parametrize("arguments", [("nonsense",), ("token", "nonsense"), ("token", "transfer")])
def test_a_command_that_does_not_exist_or_lacks_something_is_status_2(
    cli: Cli, arguments: tuple[str, ...]
) -> None:
    outcome = cli(*arguments)
    assert outcome.status == 2
    assert re.fullmatch(r"error: .+; see `evalpool.* --help`\n", outcome.err)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (Failure("[bold]no[/bold]"), "[bold]no[/bold]"),
        (WalletError("no wallet"), "no wallet"),
        (InvalidKeyFile("no key"), "no key"),
        (InvalidValue("no value"), "no value"),
        (InvalidFields([Violation("a", "b")]), "a: b"),
        (ModelError("no model"), "no model"),
        (Failure("no\n  more", reason="MISSING"), "no more [MISSING]"),
        (PermissionError(13, "Permission denied", "/home/x"), "/home/x: Permission denied"),
        (OSError("the disk is gone"), "the disk is gone"),
        (
            CallError(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),
            "the server does not know this call (Method not found!); it is another service or an "
            "older one: look at EVALPOOL_TOKEN, EVALPOOL_BENCHMARK, …",
        ),
        (CallError(grpc.StatusCode.NOT_FOUND, "gone", "POOL_NOT_FOUND"), "gone [POOL_NOT_FOUND]"),
        (CallError(grpc.StatusCode.NOT_FOUND, "gone"), "gone [NOT_FOUND]"),
        (CallError(grpc.StatusCode.UNAVAILABLE, "later", "UNAVAILABLE"), "later [UNAVAILABLE]"),
        (
            grpc.aio.AioRpcError(
                grpc.StatusCode.INTERNAL,
                grpc.aio.Metadata(),
                grpc.aio.Metadata(),
                details="x" * 300,
            ),
            "x" * 300 + " [INTERNAL]",
        ),
    ],
)
def test_a_failure_is_one_line_however_long_it_is(
    cli: Cli, error: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(root, "app", fail)
    assert cli().failure == sentence


@pytest.mark.parametrize("option", [("-o", "json"), ("--output=json",), ("--output", "json")])
def test_a_program_gets_a_failure_as_one_line_of_json(
    cli: Cli, option: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = CallError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "pool: it takes 1 entry",
        "ENTRY_LIMIT",
        metadata={"limit": "1"},
        violations=(Violation("pool", "full"),),
        retry_after=2.5,
    )

    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(root, "app", fail)
    outcome = cli("pool", "join", *option)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert json.loads(outcome.err) == {
        "error": "pool: it takes 1 entry",
        "reason": "ENTRY_LIMIT",
        "code": "RESOURCE_EXHAUSTED",
        "metadata": {"limit": "1"},
        "violations": [{"field": "pool", "description": "full"}],
        "retry_after": 2.5,
    }


def test_a_program_gets_its_own_mistakes_as_json_too(cli: Cli) -> None:
    outcome = cli("wallet", "token", "-o", "json")
    assert outcome.status == 2
    assert "--for" in json.loads(outcome.err)["error"]


def test_an_error_that_nobody_foresaw_is_not_hidden(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(root, "app", fail)
    with pytest.raises(ZeroDivisionError):
        cli()


def test_a_negative_number_is_told_apart_from_an_option(cli: Cli) -> None:
    outcome = cli("token", "transfer", "A" * 43, "-3")
    assert outcome.status == 2
    assert "-3 (a value that begins with a hyphen goes after --)" in outcome.err


def test_a_home_that_cannot_be_written_to_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALPOOL_HOME", "/proc/nowhere")
    assert cli("wallet", "address").failure == "/proc/nowhere: No such file or directory"


def test_a_group_without_a_command_shows_its_help(cli: Cli) -> None:
    outcome = cli("pool")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("Usage: evalpool pool")
    assert "join" in outcome.err


def test_the_clients_own_dependencies_suffice_for_the_command_line() -> None:
    # As for those who install `evalpool` without any service.
    script = """
import sys
for name in ("alembic", "chromadb", "grpc_health", "grpc_reflection", "isodate",
             "llama_cpp", "numpy", "onnxruntime", "prometheus_client", "psycopg", "pyarrow",
             "pydantic_settings", "sqlalchemy", "structlog", "tokenizers", "uvloop"):
    sys.modules[name] = None
from evalpool.cli import main
sys.argv = ["evalpool", "model", "list", "--catalogue"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "SmolLM2" in done.stdout


def test_an_interrupted_command_is_status_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(root, "app", interrupt)
    outcome = cli()
    assert (outcome.status, outcome.err) == (130, "interrupted\n")


def test_a_broken_wallet_file_is_one_line(cli: Cli) -> None:
    from evalpool.wallet import home

    (home() / "wallets").mkdir(parents=True)
    (home() / "wallets" / "default.json").write_text("{}")
    assert "holds no private Ed25519 key" in cli("wallet", "address").failure


def test_messages_are_json_with_the_contracts_names() -> None:
    message = token_pb2.GetBalanceResponse(account="a")
    assert as_json({"x": [message, (1, None)]}) == {
        "x": [{**as_json(message), "account": "a"}, [1, None]]
    }
    assert "balance" in as_json(message)


def test_ids_and_names_are_shortened_for_people() -> None:
    assert short("a" * 11) == "a" * 11
    assert short("a" * 12) == "a" * 10 + "…"
    assert enum_text("POOL_STATE_SETTLED_NOW", "POOL_STATE_") == "settled now"
    assert moment(Timestamp()) == ""
    assert moment(Timestamp(seconds=1)) == "1970-01-01 00:00:01"


def test_what_others_wrote_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name"], [("[red]alice[/red]",), ("[/bold]",)], title="[b]pool[/nonsense]")
    out = capsys.readouterr().out
    assert "[red]alice[/red]" in out
    assert "[/bold]" in out
    assert "[b]pool[/nonsense]" in out


def test_what_others_wrote_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name"], [("\x1b]0;owned\x07\x9b2Jalice",)], title="\x1b[31mpool")
    print_fields({"reason": "\x1b[2Jgone\nnext"})
    out = capsys.readouterr().out
    assert "alice" in out
    assert "pool" in out
    assert not set("\x1b\x07\x9b") & set(out)

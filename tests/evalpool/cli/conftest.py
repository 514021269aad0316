"""The command line in this process, a home of its own, and a real token service."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalpool.cli import main
from evalpool.endpoints import PORTS
from evalpool.wallet import Wallets
from evalpool_runtime.testing import ServiceUnderTest
from evalpool_token.service import SERVICE
from tests.evalpool.cli.commands import Cli, Outcome
from tests.evalpool.service_thread import running_in_a_thread

NOWHERE = "127.0.0.1:1"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without wallets and without servers."""
    folder = tmp_path / "home"
    monkeypatch.setenv("EVALPOOL_HOME", str(folder))
    monkeypatch.setenv("EVALPOOL_DATA", str(tmp_path / "data"))
    for service in PORTS:
        monkeypatch.setenv(f"EVALPOOL_{service.upper()}", NOWHERE)
    return folder


@pytest.fixture
def cli(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command: `cli("wallet", "new", "alice")`."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["evalpool", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return Outcome(int(caught.value.code or 0), out, err)

    return run


@pytest.fixture
def token(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServiceUnderTest]:
    """A token service that the commands find, whose operator the wallet "operator" is."""
    data = tmp_path / "token"
    with running_in_a_thread(SERVICE, data) as service:
        monkeypatch.setenv("EVALPOOL_TOKEN", service.endpoint)
        Wallets().add("operator", data / "keys" / "operator.json")
        yield service

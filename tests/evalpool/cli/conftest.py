"""The command line in this process, a home of its own, and a real token service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evalpool.endpoints import PORTS
from evalpool.wallet import Wallets
from evalpool_runtime.testing import ServiceUnderTest
from evalpool_token.service import SERVICE
from tests.benchmark.world import World, running_world
from tests.evalpool.background import Background
from tests.evalpool.cli.commands import Cli, in_this_process
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
    """Runs a command of a user without wallets and without servers."""
    return in_this_process(monkeypatch, capsys)


@pytest.fixture
def background() -> Iterator[Background]:
    """Where services run that the commands find."""
    with Background.running() as made:
        yield made


@pytest.fixture
def world(
    home: Path, tmp_path: Path, background: Background, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """The services of a pool, whose benchmark service the commands find."""
    running = running_world(tmp_path)
    made: World = background.do(running.__aenter__())
    monkeypatch.setenv("EVALPOOL_BENCHMARK", made.benchmark.endpoint)
    yield made
    background.do(running.__aexit__(None, None, None))


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

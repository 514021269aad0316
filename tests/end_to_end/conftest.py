"""A whole deployment as processes, on free ports, as `evalpool up` runs it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from evalpool.endpoints import PORTS
from evalpool.models import ModelStore

ROOT = Path(__file__).resolve().parents[2]
METRICS_OFFSET = 4000


@dataclass(frozen=True)
class Deployment:
    """A running `evalpool up`.

    Attributes:
        process: The supervisor.
        data: The data directory.
        environment: What commands against it need.
        ports: Where the services answer.
    """

    process: subprocess.Popen[str]
    data: Path
    environment: dict[str, str]
    ports: dict[str, int]

    def evalpool(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line."""
        return subprocess.run(
            [sys.executable, "-m", "evalpool", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=check,
        )


def free_ports() -> dict[str, int]:
    """A port a service, free together with its metrics' port."""
    chooser = random.Random(os.getpid())
    chosen: dict[str, int] = {}
    for service in PORTS:
        while True:
            port = chooser.randrange(20_000, 40_000)
            if _free(port) and _free(port + METRICS_OFFSET) and port not in chosen.values():
                chosen[service] = port
                break
    return chosen


def start(data: Path, ports: dict[str, int], *arguments: str) -> Deployment:
    """Start `evalpool up` and wait until it is ready."""
    environment = {
        **os.environ,
        "EVALPOOL_HOME": str(data / "home"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **{f"EVALPOOL_{service.upper()}": f"127.0.0.1:{port}" for service, port in ports.items()},
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "evalpool", "up", "--data", str(data), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("ready"):
            return Deployment(process, data, environment, ports)
    raise AssertionError("".join(said))


def stop(deployment: Deployment) -> int:
    """Stop it by SIGTERM; gives its exit status."""
    deployment.process.send_signal(signal.SIGTERM)
    assert deployment.process.stdout is not None
    # Read to the end, so that it is never held up by a full pipe.
    deployment.process.stdout.read()
    deployment.process.stdout.close()
    return deployment.process.wait(timeout=60)


def share_models(data: Path, store: ModelStore) -> None:
    """Let a deployment find the models that have been fetched already."""
    models = data / "models"
    models.parent.mkdir(parents=True, exist_ok=True)
    models.symlink_to(store.root)


@pytest.fixture
def deployment(tmp_path: Path, model_store: ModelStore, smollm2_path: Path) -> Iterator[Deployment]:
    """The six services, with the models at hand."""
    share_models(tmp_path / "data", model_store)
    running = start(tmp_path / "data", free_ports())
    try:
        yield running
    finally:
        if running.process.poll() is None:
            stop(running)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

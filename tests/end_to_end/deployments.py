"""Whole deployments as processes, on free ports, as `evalpool up` runs them."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from evalpool.endpoints import FURTHER_WORKERS_PORT, PORTS
from evalpool.models import ModelStore, ensure, find_model

METRICS_OFFSET = 4000
FURTHER_WORKER_OFFSET = FURTHER_WORKERS_PORT - PORTS["worker"]
EMBEDDING_MODELS = ("all-MiniLM-L6-v2-int8", "all-MiniLM-L6-v2-tokenizer")


@dataclass(frozen=True)
class Deployment:
    """A running `evalpool up`.

    Attributes:
        process: The supervisor.
        data: The data directory.
        environment: What commands against it need.
        ports: Where the services answer.
        said: The events that it has told until it was ready.
    """

    process: subprocess.Popen[str]
    data: Path
    environment: dict[str, str]
    ports: dict[str, int]
    said: list[dict[str, Any]]

    def evalpool(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line, as a process."""
        return subprocess.run(
            [sys.executable, "-m", "evalpool", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=check,
        )

    def audit(self) -> None:
        """See that the books of ledger and pools add up, whatever happened to them."""
        audited = self.evalpool("audit", check=False)
        assert (audited.returncode, audited.stderr) == (0, ""), audited.stdout + audited.stderr

    def next_event(self) -> dict[str, Any]:
        """Wait for the next thing that it tells."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "it has ended"
        event: dict[str, Any] = json.loads(line)
        return event

    def children(self, service: str = "") -> list[int]:
        """Its processes that run a service, or any."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            # One may have died just now.
            with suppress(psutil.NoSuchProcess):
                words = child.cmdline()
                if "serve" in words and service in ("", words[words.index("serve") + 1]):
                    found.append(child.pid)
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it by a signal, cleanly: nothing has to be killed, and nothing is left."""
        self.process.send_signal(number)
        assert self.process.stdout is not None
        # Read to the end, so that it is never held up by a full pipe.
        with self.process.stdout:
            said = [json.loads(line) for line in self.process.stdout]
        assert self.process.wait(timeout=60) == 0
        assert [event["event"] for event in said[-2:]] == ["stopping", "stopped"]
        assert processes_on(self.data) == []


def processes_on(data: Path) -> list[psutil.Process]:
    """Processes that have something to do with a data directory."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(word.startswith(f"{data}/") for word in process.info["cmdline"] or ())
    ]


def free_ports() -> dict[str, int]:
    """A port a service, free together with its metrics' port and those of a second worker."""
    chooser = random.Random(os.getpid())
    taken: set[int] = set()
    chosen: dict[str, int] = {}
    for service in PORTS:
        while service not in chosen:
            port = chooser.randrange(20_000, 32_000)
            needed = {port, port + METRICS_OFFSET}
            if service == "worker":
                needed |= {each + FURTHER_WORKER_OFFSET for each in needed}
            if not needed & taken and all(_is_free(each) for each in needed):
                taken |= needed
                chosen[service] = port
    return chosen


def environment_of(
    data: Path, ports: Mapping[str, int], more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What processes of a deployment, and commands against it, find in their environment."""
    return {
        **os.environ,
        "EVALPOOL_HOME": str(data / "home"),
        "EVALPOOL_DATA": str(data),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **{f"EVALPOOL_{service.upper()}": f"127.0.0.1:{port}" for service, port in ports.items()},
        **(more or {}),
    }


def start(
    data: Path,
    ports: dict[str, int],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
) -> Deployment:
    """Start `evalpool up` and wait until it is ready."""
    whole = environment_of(data, ports, environment)
    process = subprocess.Popen(
        [sys.executable, "-m", "evalpool", "up", "--output", "json", *arguments],
        env=whole,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(json.loads(line))
        if said[-1].get("event") == "ready":
            return Deployment(process, data, whole, ports, said)
    process.wait()
    process.stdout.close()
    raise AssertionError(said)


@contextmanager
def running(
    data: Path,
    ports: dict[str, int],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Deployment]:
    """A deployment that is audited at the end, and stopped if it still runs."""
    deployment = start(data, ports, *arguments, environment=environment)
    try:
        yield deployment
        deployment.audit()
    finally:
        if deployment.process.poll() is None:
            deployment.stop()


def share_models(data: Path, store: ModelStore, *names: str) -> None:
    """Let a deployment find models that have been fetched already, in a store of its own."""
    models = data / "models"
    for name in names:
        path = ensure(store, find_model(name))
        place = models / path.relative_to(store.root)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

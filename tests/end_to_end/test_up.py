"""`evalpool up`: starting, what happens when a process dies, and stopping."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from evalpool.endpoints import PORTS
from evalpool.models import ModelStore
from tests.end_to_end.conftest import SMOLLM2
from tests.end_to_end.deployments import (
    EMBEDDING_MODELS,
    FURTHER_WORKER_OFFSET,
    METRICS_OFFSET,
    Deployment,
    environment_of,
    free_ports,
    processes_on,
    running,
    share_models,
    start,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def two_workers(
    tmp_path_factory: pytest.TempPathFactory, model_store: ModelStore
) -> Iterator[Deployment]:
    data = tmp_path_factory.mktemp("up") / "data"
    share_models(data, model_store, SMOLLM2, *EMBEDDING_MODELS)
    with running(data, free_ports(), "--workers", "2") as deployment:
        yield deployment


def refusal(data: Path, ports: dict[str, int], *arguments: str, **environment: str) -> str:
    """The one line with which `evalpool up` refuses to start."""
    done = subprocess.run(
        [sys.executable, "-m", "evalpool", "up", *arguments],
        env=environment_of(data, ports, environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("error: ").rstrip("\n")


def test_every_process_is_told_with_its_endpoint_before_it_is_ready(
    two_workers: Deployment,
) -> None:
    *serving, ready = two_workers.said
    assert ready == {"event": "ready", "data": str(two_workers.data)}
    second = two_workers.ports["worker"] + FURTHER_WORKER_OFFSET
    assert {(each["process"], each["endpoint"]) for each in serving} == {
        *((service, f"127.0.0.1:{two_workers.ports[service]}") for service in PORTS),
        ("worker-2", f"127.0.0.1:{second}"),
    }
    assert len(two_workers.children()) == len(PORTS) + 1


def test_both_workers_are_in_the_herd(two_workers: Deployment) -> None:
    done = two_workers.evalpool("status", "-w", "operator", "-o", "json")
    status = json.loads(done.stdout)
    assert {each["state"] for each in status["services"]} == {"serving"}
    assert status["herd"]["workers"] == 2
    endpoints = {each["endpoint"] for each in status["herd"]["worker_details"]}
    first = two_workers.ports["worker"]
    assert endpoints == {f"127.0.0.1:{port}" for port in (first, first + FURTHER_WORKER_OFFSET)}


def test_a_second_deployment_on_the_data_directory_is_refused_and_changes_nothing(
    two_workers: Deployment, tmp_path: Path
) -> None:
    book = two_workers.data / "home" / "addresses.json"
    before = book.read_text()

    line = refusal(two_workers.data, free_ports())

    assert line.startswith(f"another deployment runs on {two_workers.data}")
    assert "--data" in line
    assert book.read_text() == before
    assert two_workers.evalpool("token", "balance").stdout == "0\n"


def test_a_port_in_use_is_told_and_who_uses_it_stays_known(
    two_workers: Deployment, tmp_path: Path
) -> None:
    home = {"EVALPOOL_HOME": str(two_workers.data / "home")}

    line = refusal(tmp_path / "other", two_workers.ports, **home)

    endpoint = f"127.0.0.1:{two_workers.ports['token']}"
    assert line.startswith(f"{endpoint} cannot be listened on for token (Address already in use)")
    assert "EVALPOOL_TOKEN" in line
    assert two_workers.evalpool("token", "balance").stdout == "0\n"
    assert two_workers.evalpool("token", "balance", "-w", "operator").stdout == "0\n"


def test_a_port_in_use_for_metrics_or_a_further_worker_is_told(tmp_path: Path) -> None:
    ports = free_ports()
    metrics = ports["dataset"] + METRICS_OFFSET
    second = ports["worker"] + FURTHER_WORKER_OFFSET
    with socket.create_server(("127.0.0.1", metrics)):
        line = refusal(tmp_path, ports)
    assert line.startswith(f"127.0.0.1:{metrics} cannot be listened on for dataset's metrics")
    with socket.create_server(("127.0.0.1", second)):
        line = refusal(tmp_path, ports, "--workers", "2")
    assert line.startswith(f"127.0.0.1:{second} cannot be listened on for worker-2")


def test_two_services_on_one_port_are_refused(tmp_path: Path) -> None:
    ports = free_ports()
    line = refusal(tmp_path, {**ports, "benchmark": ports["dataset"]})
    assert f"127.0.0.1:{ports['dataset']} cannot be listened on" in line


@pytest.mark.parametrize("endpoint", ["nonsense", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:70000"])
def test_an_endpoint_that_is_none_is_told(tmp_path: Path, endpoint: str) -> None:
    line = refusal(tmp_path, free_ports(), EVALPOOL_ROUTER=endpoint)
    assert line == f'EVALPOOL_ROUTER is "{endpoint}"; give host:port, such as "127.0.0.1:50054"'


def test_workers_without_a_port_are_refused(tmp_path: Path) -> None:
    line = refusal(tmp_path, {**free_ports(), "worker": 65_500}, "--workers", "2")
    assert line.startswith("worker-2 would get the port 65600")


def test_a_service_that_does_not_start_is_told_with_its_reason_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    # Its database is a folder.
    (tmp_path / "benchmark" / "benchmark.db").mkdir(parents=True)
    line = refusal(tmp_path, free_ports())
    assert line.startswith("benchmark does not start: the benchmark service's database cannot be")
    assert processes_on(tmp_path) == []


def test_a_process_that_dies_is_told_and_started_again(two_workers: Deployment) -> None:
    (victim,) = two_workers.children("embedding")

    os.kill(victim, signal.SIGKILL)

    died = two_workers.next_event()
    assert died["event"] == "trouble"
    assert died["message"].startswith("embedding was killed by SIGKILL; starting it again")
    assert str(two_workers.data / "logs" / "embedding.log") in died["message"]
    assert two_workers.next_event()["message"] == "embedding answers again"
    (successor,) = two_workers.children("embedding")
    assert successor != victim
    assert two_workers.evalpool("documents", "list", "-o", "json").stdout == "[]\n"


def test_ctrl_c_ends_everything_and_a_second_start_finds_what_was_there(
    two_workers: Deployment,
) -> None:
    two_workers.evalpool("wallet", "new", "saver")
    two_workers.evalpool("token", "mint", "saver", "77")

    two_workers.stop(signal.SIGINT)

    with running(two_workers.data, two_workers.ports) as again:
        assert again.evalpool("token", "balance", "saver").stdout == "77\n"


def test_nothing_outlives_a_deployment_that_is_killed(
    tmp_path: Path, model_store: ModelStore
) -> None:
    share_models(tmp_path, model_store, SMOLLM2, *EMBEDDING_MODELS)
    deployment = start(tmp_path, free_ports())
    orphans = [psutil.Process(pid) for pid in deployment.children()]
    assert len(orphans) == len(PORTS)

    deployment.process.kill()

    deployment.process.communicate()
    _, alive = psutil.wait_procs(orphans, timeout=60)
    assert alive == []

"""The plan of a whole deployment on this machine: which processes, where, with which settings.

Each process gets its settings as flags; keys and data lie in one data directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evalpool.cli.failure import Failure
from evalpool.cli.serving import load_definition
from evalpool.endpoints import (
    FURTHER_WORKERS_PORT,
    HIGHEST_PORT,
    PORTS,
    Endpoints,
    metrics_endpoint,
)
from evalpool.identity import Identity

START_ORDER = ("token", "embedding", "router", "worker", "dataset", "benchmark")


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """One process of the deployment.

    Attributes:
        name: Its name, such as "worker-2".
        service: The service that it runs.
        endpoint: Where it answers.
        metrics: Where its metrics are; empty for nowhere.
        address: The address of its key.
        flags: The flags of `evalpool serve`.
        log: Where its log goes.
    """

    name: str
    service: str
    endpoint: str
    metrics: str
    address: str
    flags: tuple[str, ...]
    log: Path


@dataclass(frozen=True, slots=True)
class DeploymentPlan:
    """A deployment on this machine.

    Attributes:
        data: The data directory.
        processes: What runs, in the order of starting.
        operator: The operator's address.
        operator_key: The operator's key file.
        endpoints: Where clients find the services.
    """

    data: Path
    processes: tuple[ProcessPlan, ...]
    operator: str
    operator_key: Path
    endpoints: Endpoints


def plan_deployment(
    data: Path,
    *,
    workers: int = 1,
    endpoints: Endpoints | None = None,
    settings: Mapping[str, Mapping[str, str]] | None = None,
) -> DeploymentPlan:
    """Plan the six services; makes their keys where there are none.

    Args:
        data: The data directory, made where it is missing.
        workers: How many workers, at least one.
        endpoints: Where the services listen. Default: the design's ports on 127.0.0.1.
        settings: Further settings by service, as flags' values.

    Raises:
        Failure: An endpoint is none, or there are no ports for so many workers.
    """
    data = data.resolve()
    endpoints = endpoints or Endpoints.from_environment()
    names = [*(s for s in START_ORDER if s != "worker")]
    workers_names = ["worker", *(f"worker-{n}" for n in range(2, workers + 1))]
    position = names.index("router") + 1
    names[position:position] = workers_names
    where = {name: _endpoint(name, endpoints) for name in names}
    keys = data / "keys"
    addresses = {name: Identity.load_or_create(keys / f"{name}.json").address for name in names}
    operator_key = keys / "operator.json"
    operator = Identity.load_or_create(operator_key).address
    common = {
        "operator": operator,
        "admitted_workers": ",".join(addresses[name] for name in workers_names),
        "admitted_routers": addresses["router"],
        "models_dir": str(data / "models"),
    }
    for service in PORTS:
        common[f"{service}_endpoint"] = where[service]
        common[f"{service}_address"] = addresses[service]
    processes = []
    for name in names:
        service = name.partition("-")[0]
        known = load_definition(service).settings_type.model_fields
        values = {key: value for key, value in common.items() if key in known}
        values |= {
            "listen": where[name],
            "metrics_listen": metrics_endpoint(where[name]),
            "data_dir": str(data / name),
            "key_file": str(keys / f"{name}.json"),
            **(settings or {}).get(service, {}),
        }
        if "workers_on_host" in known:
            values["workers_on_host"] = str(workers)
        processes.append(
            ProcessPlan(
                name=name,
                service=service,
                endpoint=where[name],
                metrics=values["metrics_listen"],
                address=addresses[name],
                flags=tuple(
                    part
                    for key, value in values.items()
                    for part in (f"--{key.replace('_', '-')}", value)
                ),
                log=data / "logs" / f"{name}.log",
            )
        )
    return DeploymentPlan(data, tuple(processes), operator, operator_key, endpoints)


def _endpoint(name: str, endpoints: Endpoints) -> str:
    service, _, number = name.partition("-")
    endpoint = endpoints.of(service)
    host, _, digits = endpoint.rpartition(":")
    if not host or not digits.isascii() or not digits.isdigit() or not 0 < int(digits) < 2**16:
        raise Failure(
            f'EVALPOOL_{service.upper()} is "{endpoint}"; give host:port, such as '
            f'"127.0.0.1:{PORTS[service]}"'
        )
    if not number:
        return endpoint
    port = int(digits) - PORTS["worker"] + FURTHER_WORKERS_PORT + int(number) - 2
    if port > HIGHEST_PORT:
        raise Failure(
            f"{name} would get the port {port}, and the highest is {HIGHEST_PORT}; start fewer "
            "workers, or set EVALPOOL_WORKER to a lower port"
        )
    return f"{host}:{port}"

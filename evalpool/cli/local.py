"""A whole deployment on this machine: the six services as processes, one data directory.

`evalpool up` and `evalpool demo` run it. Each process gets its settings as flags, writes its log
into the data directory, is started again when it dies, and stops when this process does, because it
watches the other end of its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from evalpool.channel import open_channel
from evalpool.cli.failure import Failure
from evalpool.cli.serving import load_definition
from evalpool.endpoints import FURTHER_WORKERS_PORT, PORTS, Endpoints
from evalpool.identity import Identity
from evalpool.wallet import AddressBook, Wallets

START_ORDER = ("token", "embedding", "router", "worker", "dataset", "benchmark")
START_SECONDS = 60.0
STOP_SECONDS = 20.0
LONGEST_BACK_OFF = 10.0
METRICS_PORT_OFFSET = 4000


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """One process of the deployment.

    Attributes:
        name: Its name, such as "worker-2".
        service: The service that it runs.
        endpoint: Where it answers.
        address: The address of its key.
        flags: The flags of `evalpool serve`.
        log: Where its log goes.
    """

    name: str
    service: str
    endpoint: str
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
        endpoints: Where clients find the services.
    """

    data: Path
    processes: tuple[ProcessPlan, ...]
    operator: str
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
    """
    data = data.resolve()
    endpoints = endpoints or Endpoints.from_environment()
    names = [*(s for s in START_ORDER if s != "worker")]
    workers_names = ["worker", *(f"worker-{n}" for n in range(2, workers + 1))]
    position = names.index("router") + 1
    names[position:position] = workers_names
    keys = data / "keys"
    addresses = {name: Identity.load_or_create(keys / f"{name}.json").address for name in names}
    operator = Identity.load_or_create(keys / "operator.json").address
    where = {name: _endpoint(name, endpoints) for name in names}
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
            "metrics_listen": _metrics_endpoint(where[name]),
            "data_dir": str(data / name),
            "key_file": str(keys / f"{name}.json"),
            **(settings or {}).get(service, {}),
        }
        if "workers_on_host" in known:
            values["workers_on_host"] = str(workers)
        flags = tuple(
            part for key, value in values.items() for part in (f"--{key.replace('_', '-')}", value)
        )
        processes.append(
            ProcessPlan(
                name, service, where[name], addresses[name], flags, data / "logs" / f"{name}.log"
            )
        )
    return DeploymentPlan(data, tuple(processes), operator, endpoints)


def introduce(plan: DeploymentPlan, wallets: Wallets, book: AddressBook) -> None:
    """Make the deployment known to the user: its servers' addresses, and its operator's wallet."""
    book.replace({process.endpoint: process.address for process in plan.processes})
    wallets.add("operator", plan.data / "keys" / "operator.json")


@dataclass
class _Running:
    plan: ProcessPlan
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Keeps the processes of a plan running.

    Args:
        plan: What to run.
        tell: Called with one line when something happens that the user should know.
    """

    def __init__(self, plan: DeploymentPlan, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._tell = tell
        self._running = [_Running(process) for process in plan.processes]
        self._stopping = False

    async def start(self, ready: Callable[[ProcessPlan], None]) -> list[asyncio.Task[None]]:
        """Start everything and wait until every service answers its health check.

        Args:
            ready: Called for each process once it answers.

        Returns:
            The tasks that keep the processes running.

        Raises:
            Failure: A process ended at once, or did not answer in time.
        """
        for process in self._plan.processes:
            _check_free(process)
        (self._plan.data / "logs").mkdir(parents=True, exist_ok=True)
        keepers = [asyncio.create_task(self._keep(running)) for running in self._running]
        try:
            async with asyncio.TaskGroup() as group:
                for running in self._running:
                    group.create_task(self._await_ready(running, ready))
        except BaseException as error:
            await self.stop()
            for keeper in keepers:
                keeper.cancel()
            if isinstance(error, ExceptionGroup):
                failures, others = error.split(Failure)
                if failures is not None and others is None:
                    raise failures.exceptions[0] from None
            raise
        return keepers

    async def stop(self) -> None:
        """Stop everything: callers before callees, so that nobody misses a peer."""
        self._stopping = True
        for running in reversed(self._running):
            process = running.process
            if process is not None and process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
        for running in self._running:
            process = running.process
            if process is None or process.returncode is not None:
                continue
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                self._tell(f"{running.plan.name} did not stop in {STOP_SECONDS:.0f} s; killed")
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _keep(self, running: _Running) -> None:
        back_off = 0.5
        while not self._stopping:
            code = await self._run_once(running)
            if self._stopping:
                return
            running.restarts += 1
            if not running.ready.is_set() and running.restarts >= 2:
                return
            self._tell(
                f"{running.plan.name} ended with {code}; starting it again "
                f"(log: {running.plan.log})"
            )
            await asyncio.sleep(back_off)
            back_off = min(back_off * 2, LONGEST_BACK_OFF)

    async def _run_once(self, running: _Running) -> int:
        plan = running.plan
        with plan.log.open("ab") as log:
            running.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "evalpool",
                "serve",
                plan.service,
                "--stop-with-stdin",
                *plan.flags,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                # ctrl-C is for this process, which stops the others in order.
                start_new_session=True,
            )
        return await running.process.wait()

    async def _await_ready(self, running: _Running, ready: Callable[[ProcessPlan], None]) -> None:
        plan = running.plan
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        async with open_channel(plan.endpoint) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while not await _serving(health):
                process = running.process
                died = process is not None and process.returncode is not None
                if died and running.restarts >= 2:
                    raise Failure(f"{plan.name} does not start: {_last_line(plan.log)}")
                if asyncio.get_running_loop().time() > deadline:
                    raise Failure(
                        f"{plan.name} did not answer at {plan.endpoint} in {START_SECONDS:.0f} s; "
                        f"see {plan.log}"
                    )
                await asyncio.sleep(0.05)
        running.ready.set()
        ready(plan)


@asynccontextmanager
async def deployment(
    plan: DeploymentPlan,
    *,
    tell: Callable[[str], None],
    ready: Callable[[ProcessPlan], None],
) -> AsyncIterator[None]:
    """Run a deployment for the length of a block."""
    supervisor = Supervisor(plan, tell)
    keepers = await supervisor.start(ready)
    try:
        yield
    finally:
        await supervisor.stop()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)


def _check_free(process: ProcessPlan) -> None:
    # Another process there would answer our health checks in its place.
    host, _, port = process.endpoint.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise Failure(
                f"{process.endpoint} is in use, so {process.name} cannot listen there; stop what "
                f"runs there, or set EVALPOOL_{process.service.upper()} to another host:port"
            ) from error


async def _serving(health: Any) -> bool:
    try:
        response = await health.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
    except grpc.aio.AioRpcError:
        return False
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


def _endpoint(name: str, endpoints: Endpoints) -> str:
    service, _, number = name.partition("-")
    endpoint = endpoints.of(service)
    if not number:
        return endpoint
    host, _, port = endpoint.rpartition(":")
    first = PORTS["worker"]
    return f"{host}:{int(port) - first + FURTHER_WORKERS_PORT + int(number) - 2}"


def _metrics_endpoint(endpoint: str) -> str:
    host, _, port = endpoint.rpartition(":")
    metrics_port = int(port) + METRICS_PORT_OFFSET
    return f"{host}:{metrics_port}" if metrics_port < 2**16 else ""


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"see {log}"

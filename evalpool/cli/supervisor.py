"""Runs a planned deployment: `evalpool up` and `evalpool demo`.

Each process writes its log into the data directory, is started again when it dies, and stops when
this process does, because it watches the other end of its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from filelock import FileLock, Timeout

from evalpool.channel import open_channel
from evalpool.cli.deployment_plan import DeploymentPlan, ProcessPlan
from evalpool.cli.failure import Failure
from evalpool.wallet import AddressBook, Wallets

START_SECONDS = 60.0
STOP_SECONDS = 20.0
FIRST_BACK_OFF = 0.5
LONGEST_BACK_OFF = 10.0
STEADY_SECONDS = 60.0
"""A process that ran this long before it died is started again as soon as one that never died."""

Tell = Callable[[str], None]
"""Called with one line when something happens that the user should know."""

Ready = Callable[[ProcessPlan], None]
"""Called for each process once it answers."""


@asynccontextmanager
async def deployment(
    plan: DeploymentPlan, wallets: Wallets, addresses: AddressBook, *, tell: Tell, ready: Ready
) -> AsyncIterator[None]:
    """Run a deployment for the length of a block.

    Args:
        plan: What to run.
        wallets: Get the operator's wallet.
        addresses: Get the servers' addresses.
        tell: Called when a process ends, and when it answers again.
        ready: Called for each process once it answers.

    Raises:
        Failure: The data directory or a port is in use, or a process does not start.
    """
    with _data_directory(plan.data):
        _check_free(plan.processes)
        # Not before: what runs already stays known to its users.
        addresses.replace({process.endpoint: process.address for process in plan.processes})
        wallets.add("operator", plan.operator_key)
        supervisor = _Supervisor(plan, tell, ready)
        try:
            await supervisor.start()
            yield
        finally:
            await supervisor.stop()


@dataclass
class _Charge:
    """A process that is kept running."""

    plan: ProcessPlan
    process: Process | None = None
    log_begin: int = 0
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class _Supervisor:
    """Keeps the processes of a plan running."""

    def __init__(self, plan: DeploymentPlan, tell: Tell, ready: Ready) -> None:
        self._plan = plan
        self._tell = tell
        self._ready = ready
        self._charges = [_Charge(process) for process in plan.processes]
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start everything and wait until every service answers its health check.

        Raises:
            Failure: A process ended before it answered, or did not answer in time.
        """
        (self._plan.data / "logs").mkdir(parents=True, exist_ok=True)
        self._keepers = [asyncio.create_task(self._keep(charge)) for charge in self._charges]
        answers = asyncio.create_task(self._all_answer())
        try:
            await asyncio.wait(
                {answers, *self._keepers},
                timeout=START_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            answers.cancel()
        for keeper in self._keepers:
            if keeper.done():
                await keeper
        for charge in self._charges:
            if not charge.answered.is_set():
                raise Failure(
                    f"{charge.plan.name} did not answer at {charge.plan.endpoint} in "
                    f"{START_SECONDS:.0f} s; see {charge.plan.log}"
                )

    async def _all_answer(self) -> None:
        for charge in self._charges:
            await charge.answered.wait()

    async def stop(self) -> None:
        """Stop everything; what does not stop in time is killed."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        running = {
            charge.plan.name: charge.process
            for charge in reversed(self._charges)
            if charge.process is not None and charge.process.returncode is None
        }
        # Callers before callees, so that few of them miss a peer.
        for process in running.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        waiting = {name: asyncio.create_task(each.wait()) for name, each in running.items()}
        if waiting:
            await asyncio.wait(waiting.values(), timeout=STOP_SECONDS)
        for name, process in running.items():
            if not waiting[name].done():
                self._tell(f"{name} did not stop in {STOP_SECONDS:.0f} s; killed")
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        await asyncio.gather(*waiting.values())

    async def _keep(self, charge: _Charge) -> None:
        """Run a process again and again.

        Raises:
            Failure: It ended before it had ever answered.
        """
        plan = charge.plan
        loop = asyncio.get_running_loop()
        back_off = FIRST_BACK_OFF
        while True:
            started = loop.time()
            try:
                ending = _ending(await self._run_once(charge))
                reason = _last_line(plan.log, charge.log_begin)
            except OSError as error:
                ending, reason = f"cannot be started ({error})", str(error)
            if not charge.answered.is_set():
                raise Failure(f"{plan.name} does not start: {reason or f'it {ending}'}")
            if loop.time() - started > STEADY_SECONDS:
                back_off = FIRST_BACK_OFF
            self._tell(
                f"{plan.name} {ending}; starting it again in {back_off:g} s (log: {plan.log})"
            )
            await asyncio.sleep(back_off)
            back_off = min(back_off * 2, LONGEST_BACK_OFF)

    async def _run_once(self, charge: _Charge) -> int:
        """Start a process, say when it answers, and wait for its end; gives its exit status."""
        plan = charge.plan
        with plan.log.open("ab") as log:
            charge.log_begin = log.tell()
            charge.process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "evalpool", "serve", plan.service, "--stop-with-stdin"),
                *plan.flags,
                stdin=PIPE,
                stdout=log,
                stderr=log,
                # ctrl-C is for this process, which stops the others in order.
                start_new_session=True,
            )
        answering = asyncio.create_task(_answering(plan.endpoint))
        ended = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({answering, ended}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done() and answering.exception() is None:
                if charge.answered.is_set():
                    self._tell(f"{plan.name} answers again")
                else:
                    self._ready(plan)
                    charge.answered.set()
            return await ended
        finally:
            for task in (answering, ended):
                task.cancel()
            await asyncio.gather(answering, ended, return_exceptions=True)


@contextmanager
def _data_directory(data: Path) -> Iterator[None]:
    """Hold a data directory against other deployments."""
    data.mkdir(parents=True, exist_ok=True)
    lock = FileLock(data / "deployment.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise Failure(
            f"another deployment runs on {data}; stop it, or choose another --data"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check_free(processes: Iterable[ProcessPlan]) -> None:
    """Refuse ports that are taken: who is there would answer our health checks in our place."""
    with contextlib.ExitStack() as probes:
        for process in processes:
            for endpoint, what in ((process.endpoint, ""), (process.metrics, "'s metrics")):
                if endpoint:
                    _check_port(endpoint, process, what, probes)


def _check_port(
    endpoint: str, process: ProcessPlan, what: str, probes: contextlib.ExitStack
) -> None:
    host, _, port = endpoint.rpartition(":")
    probe = probes.enter_context(socket.socket())
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        # Kept until all are probed, so that two processes on one port are found too.
        probe.bind((host, int(port)))
        probe.listen()
    except OSError as error:
        raise Failure(
            f"{endpoint} cannot be listened on for {process.name}{what} ({error.strerror}); stop "
            f"what runs there, or set EVALPOOL_{process.service.upper()} to another host:port"
        ) from error


async def _answering(endpoint: str) -> None:
    """Wait until a service answers its health check with SERVING."""
    # Installed with the services, which a client can do without.
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with open_channel(endpoint) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                response = await health.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            await asyncio.sleep(0.05)


def _ending(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _last_line(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else ""

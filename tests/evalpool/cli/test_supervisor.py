"""A deployment of one real process, which is killed, stopped and held up."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from evalpool.cli import supervisor
from evalpool.cli.deployment_plan import DeploymentPlan, ProcessPlan, plan_deployment
from evalpool.cli.failure import Failure
from evalpool.cli.supervisor import deployment
from evalpool.endpoints import PORTS, Endpoints
from evalpool.wallet import AddressBook, Wallets


@dataclass
class Witness:
    """What a deployment has told, and who has become ready."""

    told: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    ready: list[str] = field(default_factory=list)

    def on_ready(self, process: ProcessPlan) -> None:
        self.ready.append(process.name)

    @property
    def child(self) -> psutil.Process:
        """The process that runs the token service."""
        (found,) = services()
        return found


def services() -> list[psutil.Process]:
    """The processes that run a service for this one."""
    return [each for each in psutil.Process().children() if "serve" in each.cmdline()]


@pytest.fixture
def plan(tmp_path: Path, unused_tcp_port_factory: Callable[[], int]) -> DeploymentPlan:
    """The token service alone."""
    ports = {service: unused_tcp_port_factory() for service in PORTS}
    endpoints = Endpoints(**{each: f"127.0.0.1:{port}" for each, port in ports.items()})
    whole = plan_deployment(
        tmp_path / "data", endpoints=endpoints, settings={"token": {"metrics_listen": ""}}
    )
    return replace(whole, processes=whole.processes[:1])


@asynccontextmanager
async def running(plan: DeploymentPlan, home: Path) -> AsyncIterator[Witness]:
    witness = Witness()
    async with deployment(
        plan,
        Wallets(home),
        AddressBook(home),
        tell=witness.told.put_nowait,
        ready=witness.on_ready,
    ):
        yield witness


async def test_who_runs_it_gets_the_operators_wallet_and_the_servers_addresses(
    plan: DeploymentPlan, tmp_path: Path
) -> None:
    async with running(plan, tmp_path) as witness:
        assert witness.ready == ["token"]
        assert Wallets(tmp_path).get("operator").address == plan.operator
        (token,) = plan.processes
        assert AddressBook(tmp_path).get(token.endpoint) == token.address
    assert witness.told.empty()
    assert services() == []


async def test_each_death_is_told_and_waited_after_for_longer(
    plan: DeploymentPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_BACK_OFF", 0.01)
    monkeypatch.setattr(supervisor, "LONGEST_BACK_OFF", 0.015)
    log = plan.processes[0].log
    async with running(plan, tmp_path) as witness:
        for pause in ("0.01", "0.015", "0.015"):
            witness.child.kill()
            assert await witness.told.get() == (
                f"token was killed by SIGKILL; starting it again in {pause} s (log: {log})"
            )
            assert await witness.told.get() == "token answers again"


async def test_after_a_steady_run_a_death_is_the_first_again(
    plan: DeploymentPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_BACK_OFF", 0.01)
    monkeypatch.setattr(supervisor, "STEADY_SECONDS", 0.0)
    async with running(plan, tmp_path) as witness:
        for _ in range(2):
            witness.child.terminate()
            told = await witness.told.get()
            assert told.startswith("token ended with status 0; starting it again in 0.01 s")
            assert await witness.told.get() == "token answers again"


async def test_what_does_not_stop_in_time_is_killed_and_told(
    plan: DeploymentPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.01)
    async with running(plan, tmp_path) as witness:
        hung = witness.child
        hung.send_signal(signal.SIGSTOP)
    assert "token did not stop in" in await witness.told.get()
    assert not hung.is_running()


async def test_what_does_not_answer_in_time_ends_the_start_and_leaves_nothing(
    plan: DeploymentPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "START_SECONDS", 0.0)
    token = plan.processes[0]
    with pytest.raises(Failure, match=f"token did not answer at {token.endpoint} in 0 s"):
        async with running(plan, tmp_path):
            raise AssertionError("unreachable")
    assert services() == []


async def test_the_reason_of_a_failed_start_is_of_this_start(
    plan: DeploymentPlan, tmp_path: Path
) -> None:
    token = plan.processes[0]
    token = replace(token, flags=(*token.flags, "--log-level", "loud"))
    token.log.parent.mkdir(parents=True)
    token.log.write_text("error: of long ago\n")
    with pytest.raises(Failure, match="token does not start: --log-level"):
        async with running(replace(plan, processes=(token,)), tmp_path):
            raise AssertionError("unreachable")


async def test_a_log_that_cannot_be_written_ends_the_start(
    plan: DeploymentPlan, tmp_path: Path
) -> None:
    token = replace(plan.processes[0], log=tmp_path)
    with pytest.raises(Failure, match=r"token does not start: .* Is a directory"):
        async with running(replace(plan, processes=(token,)), tmp_path):
            raise AssertionError("unreachable")

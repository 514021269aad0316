"""A deployment of the six services for benchmark programs, and one person who uses it."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil

from evalpool.benchmark.v1 import benchmark_pb2
from evalpool.cli.deployment_plan import DeploymentPlan, plan_deployment
from evalpool.cli.supervisor import deployment
from evalpool.client import Client
from evalpool.client.datasets import load_file, watch_run
from evalpool.client.models import push, sha256_of
from evalpool.client.pools import PoolTerms, fund, watch_entry
from evalpool.dataset.v1 import dataset_pb2
from evalpool.endpoints import PORTS, Endpoints
from evalpool.models import ModelStore, quantise
from evalpool.router.v1 import router_pb2
from evalpool.token.v1 import token_pb2
from evalpool.wallet import AddressBook, Wallets

WORKERS_SECONDS = 120.0
"""How long workers may take to come back."""

COMPUTED = "evalpool_worker_computed_tokens_total"


class System:
    """A deployment, and one person who owns questions, funds pools and enters models.

    Attributes:
        plan: What runs.
        client: The person's client.
        operator: The operator's.
    """

    def __init__(
        self, plan: DeploymentPlan, client: Client, operator: Client, folder: Path
    ) -> None:
        self.plan = plan
        self.client = client
        self.operator = operator
        self._folder = folder

    async def load(self, rows: list[dict[str, Any]]) -> str:
        """Load rows as a dataset of their own; gives its id."""
        name = f"siqa-{uuid4().hex[:8]}"
        path = self._folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        await self.client.dataset.CreateDataset(
            dataset_pb2.CreateDatasetRequest(id=name, kind="siqa")
        )
        await load_file(self.client, name, path)
        return name

    async def pool(self, dataset: str) -> str:
        """Fund a pool on a dataset; gives its id."""
        terms = PoolTerms(dataset=dataset, duration="P1D")
        return (await fund(self.client, "100", terms.tags())).pool

    async def entry(self, pool: str, digest: str) -> tuple[float, float, str]:
        """Join and follow to the score; seconds, tokens computed by the worker, and the run."""
        before = await self._computed_tokens()
        started = time.perf_counter()
        joined = await self.client.benchmark.JoinPool(
            benchmark_pb2.JoinPoolRequest(pool=pool, subject=digest, request_id=f"join-{uuid4()}")
        )
        last = joined.entry
        async for seen in watch_entry(self.client, joined.entry.id):
            last = seen
        board = await self.client.benchmark.UpdateLeaderboard(
            benchmark_pb2.UpdateLeaderboardRequest(pool=pool)
        )
        seconds = time.perf_counter() - started
        if last.state != benchmark_pb2.ENTRY_STATE_SCORED or not board.leaderboard.rows:
            raise SystemExit(f"the entry was not scored: {last.reason}")
        return seconds, await self._computed_tokens() - before, last.run

    async def score_some(self, digest: str, rows: list[dict[str, Any]]) -> None:
        """Have a model score rows as a dataset of their own, without a pool."""
        dataset = await self.load(rows)
        response = await self.client.dataset.Benchmark(
            dataset_pb2.BenchmarkRequest(dataset=dataset, subject=digest, request_id=dataset)
        )
        async for score in watch_run(self.client, response.score.run):
            if score.state == dataset_pb2.RUN_STATE_FAILED:
                raise SystemExit(f"the run failed: {score.reason}")

    async def workers_are_there(self, count: int) -> None:
        """Wait until so many workers are in the herd, as after one was killed."""
        request = router_pb2.GetStatisticsRequest()
        async with asyncio.timeout(WORKERS_SECONDS):
            while (await self.client.router.GetStatistics(request)).workers < count:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    def memory(self) -> dict[str, int]:
        """Resident bytes of every service's process."""
        return {
            service: process.memory_info().rss
            for service in PORTS
            for process in self.processes(service)
        }

    def processes(self, service: str) -> list[psutil.Process]:
        """A service's processes."""
        found = []
        for child in psutil.Process().children():
            words = child.cmdline()
            if "serve" in words and words[words.index("serve") + 1] == service:
                found.append(child)
        return found

    async def model(self, shipped: Path, kind: str) -> tuple[Path, str]:
        """SmolLM2 in a quantisation, so that it can be entered; its file and its digest."""
        if kind == "Q4_1":
            return shipped, shipped.name
        path = self._folder / f"SmolLM2-135M-Instruct.{kind}.gguf"
        await asyncio.to_thread(quantise, shipped, path, kind)
        await push(self.client, path)
        return path, sha256_of(path)

    async def _computed_tokens(self) -> float:
        """Over all workers, since they were started."""
        total = 0.0
        async with httpx.AsyncClient() as http:
            for process in self.plan.processes:
                if process.service == "worker":
                    host, _, port = process.endpoint.rpartition(":")
                    text = (await http.get(f"http://{host}:{int(port) + 4000}/metrics")).text
                    lines = [line for line in text.splitlines() if line.startswith(COMPUTED)]
                    total += float(lines[0].split()[-1])
        return total


@asynccontextmanager
async def running_system(
    folder: Path,
    store: ModelStore,
    *,
    workers: int = 1,
    settings: Mapping[str, Mapping[str, str]] | None = None,
) -> AsyncIterator[System]:
    """Start the six services on free ports.

    Args:
        folder: For the data directory, wallets and files.
        store: Where models are found.
        workers: How many workers.
        settings: Further settings by service, as flags' values.
    """
    data = folder / "data"
    data.mkdir()
    (data / "models").symlink_to(store.root)
    plan = plan_deployment(data, workers=workers, endpoints=_free_endpoints(), settings=settings)
    wallets, book = Wallets(folder / "home"), AddressBook(folder / "home")
    owner = wallets.new("owner")
    async with (
        deployment(plan, wallets, book, tell=print, ready=lambda _: None),
        Client(wallets.get("operator"), endpoints=plan.endpoints, addresses=book) as operator,
        Client(owner, endpoints=plan.endpoints, addresses=book) as client,
    ):
        await operator.token.Mint(
            token_pb2.MintRequest(recipient=owner.address, quantity="100000", request_id="mint")
        )
        yield System(plan, client, operator, folder)


def free_port() -> int:
    """A port that nobody listens on now; below those that systems give to callers.

    All come from 4,000 numbers, so that none is another one's metrics port.
    """
    while True:
        port = random.randrange(20_000, 24_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def _free_endpoints() -> Endpoints:
    ports: set[int] = set()
    while len(ports) < len(PORTS):
        ports.add(free_port())
    named = zip(PORTS, ports, strict=True)
    return Endpoints(**{service: f"127.0.0.1:{port}" for service, port in named})

"""A whole deployment is backed up in the midst of its work, lost, and restored."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import grpc
import psutil
import pytest

from evalpool.client import Client
from evalpool.models import ModelStore
from evalpool.samples import everyday_questions
from evalpool.token.v1 import token_pb2
from evalpool.wallet import Wallets
from tests.end_to_end.conftest import SMOLLM2
from tests.end_to_end.deployments import (
    EMBEDDING_MODELS,
    Deployment,
    free_ports,
    processes_on,
    running,
    share_models,
    start,
)
from tests.evalpool.cli.commands import Cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

FUNDS = 1_000
FILLED = 1_000_000
MINTED = 100_000
QUESTIONS = 156
ENVIRONMENT = {
    # What a lost process had leased is taken over when the lease has lapsed.
    "EVALPOOL_DATASET_LEASE_SECONDS": "6",
    "EVALPOOL_BENCHMARK_LEASE_SECONDS": "6",
    # So few that the run is many calls and commits.
    "EVALPOOL_DATASET_CHUNK_QUESTIONS": "10",
    "EVALPOOL_ROUTER_BASE_FEE": "3",
    "EVALPOOL_ROUTER_TOKEN_FEE": "1",
}


@pytest.fixture
def deployment(tmp_path: Path, model_store: ModelStore) -> Iterator[Deployment]:
    """Six services to be lost, which take money for inference."""
    data = tmp_path / "data"
    share_models(data, model_store, SMOLLM2, *EMBEDDING_MODELS)
    deployment = start(data, free_ports(), environment=ENVIRONMENT)
    try:
        yield deployment
    finally:
        if deployment.process.poll() is None:
            deployment.stop()


class Payer:
    """Pays alice's units to bob, one at a time, each under a request id of its own.

    Attributes:
        paid: The transfers that were answered, the first one first.
    """

    def __init__(self) -> None:
        self.paid: list[token_pb2.Transfer] = []
        self._ended = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()))

    def start(self) -> None:
        """Begin, and wait until one transfer is made."""
        self._thread.start()
        assert self._begun.wait(60)

    def join(self) -> None:
        """End."""
        self._ended.set()
        self._thread.join()

    async def _work(self) -> None:
        # The deployment is lost at some time.
        with suppress(grpc.aio.AioRpcError):
            async with Client(Wallets().get("alice")) as client:
                while not self._ended.is_set():
                    self.paid.append(await pay(client, len(self.paid)))
                    self._begun.set()


async def pay(client: Client, number: int) -> token_pb2.Transfer:
    """Pay bob one unit; the same again with the same number."""
    request = token_pb2.TransferRequest(
        recipient=Wallets().get("bob").address, quantity="1", request_id=f"load-{number}"
    )
    return (await client.token.Transfer(request)).transfer


async def pay_again(count: int) -> list[token_pb2.Transfer]:
    """Repeat the first transfers."""
    async with Client(Wallets().get("alice")) as client:
        return [await pay(client, number) for number in range(count)]


def balance(cli: Cli, party: str) -> int:
    found = cli("token", "balance", party, "-w", "operator", "-o", "json").json
    return int(found["balance"])


def burn(deployment: Deployment) -> None:
    """Lose everything at once: the processes, and the disk."""
    deployment.process.kill()
    deployment.process.wait()
    assert deployment.process.stdout is not None
    deployment.process.stdout.close()
    left = processes_on(deployment.data)
    for process in left:
        process.kill()
    psutil.wait_procs(left)
    shutil.rmtree(deployment.data)


def test_a_deployment_that_burns_goes_on_from_its_backup_and_pays_once(
    cli: Cli, deployment: Deployment, model_store: ModelStore, tmp_path: Path
) -> None:
    for name in ("funder", "trainer", "alice", "bob"):
        cli("wallet", "new", name)
    for party, quantity in (("funder", FUNDS), ("alice", MINTED), ("dataset", FILLED)):
        cli("token", "mint", party, str(quantity))
    cli("dataset", "create", "everyday", "-w", "funder")
    cli("dataset", "load", "everyday", str(everyday_questions()), "-w", "funder")
    documents = tmp_path / "documents.jsonl"
    texts = ("A cat sits on the mat.", "The stock market fell.")
    documents.write_text("".join(json.dumps({"content": text}) + "\n" for text in texts))
    cli("documents", "create", "facts", str(documents), "-w", "trainer")
    model = tmp_path / "mine.gguf"
    cli("model", "quantise", SMOLLM2, "Q2_K", str(model))
    assert cli("model", "push", str(model), "-w", "trainer").status == 0
    terms = ("--duration", "PT30S", "-w", "funder", "-o", "json")
    pool = cli("pool", "create", "everyday", str(FUNDS), *terms).json["pool"]
    entry = cli("pool", "join", pool, str(model), "-w", "trainer", "-o", "json").json["id"]
    shown = ("pool", "entry", entry, "-w", "trainer", "-o", "json")
    while not cli(*shown).json["done"]:
        pass
    # So that the run is in its midst, however fast it is.
    for pid in deployment.children("worker"):
        os.kill(pid, signal.SIGSTOP)
    payer = Payer()
    payer.start()

    before = len(payer.paid)
    assert deployment.evalpool("backup", str(tmp_path / "backup")).returncode == 0
    assert len(payer.paid) > before
    burn(deployment)
    payer.join()
    assert deployment.evalpool("backup", str(tmp_path / "backup"), "--verify").returncode == 0
    with closing(sqlite3.connect(tmp_path / "backup" / "dataset" / "dataset.db")) as dataset:
        (done,) = dataset.execute(
            "SELECT count(*) FROM evaluations WHERE state = 'done'"
        ).fetchone()
        assert 0 < done < QUESTIONS
    restored = tmp_path / "restored"
    cli("restore", str(tmp_path / "backup"), "--data", str(restored))
    share_models(restored, model_store, SMOLLM2, *EMBEDDING_MODELS)
    Wallets().add("operator", restored / "keys" / "operator.json")
    with running(restored, deployment.ports, environment=ENVIRONMENT):
        known = balance(cli, "bob")
        assert before <= known <= len(payer.paid)
        again = asyncio.run(pay_again(len(payer.paid)))
        assert again[:known] == payer.paid[:known]
        assert [each.id for each in again] == [each.id for each in payer.paid]
        assert balance(cli, "bob") == len(payer.paid)

        ended = cli(*shown[:3], "--watch", *shown[3:]).json
        assert (ended["state"], ended["done"]) == ("ENTRY_STATE_SCORED", QUESTIONS)
        results = cli("dataset", "results", ended["run"], "-w", "funder", "-o", "json").out
        numbers = [json.loads(line)["question"] for line in results.splitlines()]
        assert sorted(numbers) == list(range(1, QUESTIONS + 1))
        cli("pool", "leaderboard", pool, "--watch", "-w", "trainer")
        paid = cli("pool", "show", pool, "-w", "trainer", "-o", "json").json
        assert paid["pool"]["state"] == "POOL_STATE_PAID"
        assert [payout["quantity"] for payout in paid["payouts"]] == [str(FUNDS)]
        cli("pool", "allocate", pool)
        assert (balance(cli, "trainer"), balance(cli, "funder")) == (FUNDS, 0)
        parties = ("funder", "trainer", "alice", "bob", "dataset", "router", "benchmark")
        supply = int(cli("token", "info", "-o", "json").json["total_supply"])
        assert sum(balance(cli, each) for each in parties) == supply == FUNDS + MINTED + FILLED

        uploaded = ("infer", "The capital of France is", "--max-tokens", "3", "--model", str(model))
        assert cli(*uploaded, "-w", "trainer", "--pay", "500").out
        assert cli(*uploaded, "-w", "alice", "--pay", "500").failure.endswith("[SUBJECT_NOT_OWNED]")
        # Its vectors are computed anew.
        asked = ("search", "facts", "Where is the cat?", "-w", "trainer", "-o", "json")
        while (found := cli(*asked)).status:
            assert json.loads(found.err)["reason"] in ("UNAVAILABLE", "DOCUMENT_SET_NOT_READY")
        assert found.json[0]["content"] == texts[0]

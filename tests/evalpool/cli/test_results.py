"""`evalpool dataset results` against a real dataset service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from evalpool.wallet import Wallets
from tests.dataset.dataset_harness import MODEL, evaluated, lines, running_dataset
from tests.dataset.router_double import RouterDouble
from tests.evalpool.background import Background
from tests.evalpool.cli.commands import Cli


@pytest.fixture
def run(
    home: Path, tmp_path: Path, background: Background, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A run of four questions by the wallet "owner"."""
    stack = AsyncExitStack()

    async def begin() -> tuple[str, str]:
        router = await stack.enter_async_context(RouterDouble.knowing(MODEL))
        harness = await stack.enter_async_context(running_dataset(tmp_path / "dataset", router))
        stub = await harness.load(lines(4))
        return harness.service.endpoint, (await evaluated(stub)).run

    endpoint, made = background.do(begin())
    monkeypatch.setenv("EVALPOOL_DATASET", endpoint)
    Wallets().add("owner", tmp_path / "dataset" / "people" / "owner.json")
    yield made
    background.do(stack.aclose())


def test_a_file_has_what_is_printed(cli: Cli, run: str, tmp_path: Path) -> None:
    results = ("dataset", "results", run, "-w", "owner")
    printed = cli(*results).out
    assert [json.loads(line)["question"] for line in printed.splitlines()] == [1, 2, 3, 4]

    as_lines, as_parquet = tmp_path / "results.jsonl", tmp_path / "results.parquet"
    told = cli(*results, "--file", str(as_lines)).json
    assert told == {"file": str(as_lines), "results": 4}
    assert as_lines.read_text() == printed
    told_to_people = cli(*results, "--file", str(as_parquet), "-o", "table")
    assert told_to_people.out == f"4 results in {as_parquet}\n"
    # A bar is for a terminal.
    assert told_to_people.err == ""

    rows = pq.read_table(as_parquet).to_pylist()
    for row, line in zip(rows, printed.splitlines(), strict=True):
        document = json.loads(line)
        for name in ("question", "state", "prompt", "sum_logprobs", "choices", "points", "correct"):
            assert row[name] == document[name], name
        assert (
            f"{row['inference_start_time']:%Y-%m-%dT%H:%M:%SZ}"
            == (document["inference_start_time"])
        )
        assert f"{row['latency'].total_seconds():g}s" == document["latency"]
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_file()) == [
        "results.jsonl",
        "results.parquet",
    ]


def test_a_table_is_for_people(cli: Cli, run: str) -> None:
    table = cli("dataset", "results", run, "-w", "owner", "-o", "table").out
    header, _, *rows = table.strip().splitlines()
    assert header.split()[:5] == ["question", "state", "right", "predicted", "points"]
    # The double takes the shortest choice, which is the first, for the likeliest.
    assert rows[0].split()[:5] == ["1", "done", "1", "1", "1"]


def test_what_cannot_be_written_is_one_line(cli: Cli, run: str, tmp_path: Path) -> None:
    results = ("dataset", "results", run)
    refused = cli(*results, "-w", "owner", "--file", str(tmp_path / "results.csv")).failure
    assert refused == "the ending of results.csv tells no form; give one of .jsonl, .parquet"
    nowhere = tmp_path / "nowhere" / "results.jsonl"
    missing = cli(*results, "-w", "owner", "--file", str(nowhere)).failure
    assert missing == f"{nowhere}: No such file or directory"
    assert cli(*results, "-w", "owner", "--file", str(tmp_path)).status == 2
    file = tmp_path / "results.jsonl"
    cli("wallet", "new", "stranger")
    for wallet, name, reason in (
        ("stranger", run, "NOT_ALLOWED"),
        ("owner", "A" * 43, "RUN_NOT_FOUND"),
    ):
        outcome = cli("dataset", "results", name, "-w", wallet, "--file", str(file))
        assert outcome.failure.endswith(f"[{reason}]")
    assert not file.exists()

"""`evalpool backup` and `restore`: what they print and refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evalpool.cli.commands import Cli
from tests.evalpool.data_directory import make_data_directory


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data_directory(tmp_path / "data")


def test_a_backup_is_made_verified_and_restored(cli: Cli, data: Path, tmp_path: Path) -> None:
    backup, new = tmp_path / "backup", tmp_path / "new"
    made = cli("backup", str(backup), "--data", str(data), "-o", "json").json
    assert made["backup"] == str(backup)
    assert made["size_bytes"] == sum(part["size_bytes"] for part in made["parts"])
    schemas = {part["path"]: part["schema"] for part in made["parts"] if part["schema"]}
    assert schemas["token/token.db"] == "0001"
    assert cli("backup", str(backup), "--verify", "-o", "json").json == made
    restored = cli("restore", str(backup), "--data", str(new), "-o", "json").json
    assert restored == {"data": str(new), **{k: v for k, v in made.items() if k != "backup"}}


def test_people_are_told_that_it_holds_keys(cli: Cli, data: Path, tmp_path: Path) -> None:
    backup = str(tmp_path / "backup")
    told = cli("backup", backup, "--data", str(data)).out
    assert "It holds the keys that move the money" in told
    assert "keys" not in cli("backup", backup, "--verify").out


def test_what_is_wrong_is_one_line(cli: Cli, data: Path, tmp_path: Path) -> None:
    backup = str(tmp_path / "backup")
    assert "has no manifest.json" in cli("backup", backup, "--verify").failure
    assert cli("backup", backup, "--data", str(data)).status == 0
    assert "nothing is overwritten" in cli("backup", backup, "--data", str(data)).failure
    assert "is not empty" in cli("restore", backup, "--data", str(data)).failure
    nowhere = cli("backup", f"{backup}-2", "--data", str(tmp_path / "nowhere"))
    assert "benchmark.db is not there" in nowhere.failure


def test_a_database_elsewhere_is_refused_with_what_to_do(
    cli: Cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALPOOL_TOKEN_DATABASE_URL", "postgresql+psycopg://host/evalpool_token")
    refused = cli("backup", str(tmp_path / "backup"), "--data", str(data)).failure
    assert refused == (
        "EVALPOOL_TOKEN_DATABASE_URL is set: the token service's database is not in the data "
        "directory. With the benchmark service stopped, take a pg_dump of each database, in the "
        "order benchmark, dataset, router, embedding, token, and copy keys/ and router/repository/"
    )
    assert not (tmp_path / "backup").exists()

"""`evalpool audit`, on the books of real services, running and stopped, sound and tampered with."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from evalpool.cli.commands.audit import SHOWN
from tests.benchmark.world import World, running_world
from tests.conftest import new_database
from tests.evalpool.background import Background
from tests.evalpool.cli.commands import Cli, Outcome


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happened: a pool paid, one returned, one running, a refund, units kept.

    Attributes:
        paid: The pool that was paid to two entries.
        nobody: The pool that nobody won.
        refunded: The transfer that went back.
        benchmark: The benchmark service's address.
    """

    paid: str
    nobody: str
    refunded: str
    benchmark: str


async def play(world: World) -> Scenario:
    funder, helper = await world.funder(), await world.funder()
    paid = await world.pool(funder, 70)
    await world.decided(helper, await world.transfer(helper, 30, ("X-Pool", paid)))
    await world.scored_entries(paid, [9, 5])
    nobody = await world.pool(helper, 20)
    await world.pool(funder, 40, Duration="P90D")
    await world.mint(world.benchmark.address, 5)
    refunded = await world.transfer(helper, 11)
    await world.refunded(helper, refunded)
    world.clock.advance(timedelta(days=31))
    await world.allocate()
    return Scenario(paid, nobody, refunded, world.benchmark.address)


AGREES = """\
ledger: entries 12, accounts 5, holds 0, supply 2,005: agrees
contributions: 4, pools 3; credits 6, not decided yet 0 (units 0): agrees
refunds: 1, not sent yet 0: agrees
payouts: 3, not sent yet 0: agrees
account: balance 45, owed 45: agrees
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def arguments(
    request: pytest.FixtureRequest, tmp_path: Path, background: Background
) -> Iterator[tuple[str, ...]]:
    """Options that name the books of services that run, once the scenario was played."""
    urls = ("", "")
    options: tuple[str, ...] = ("--data", str(tmp_path))
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql")
        urls = (new_database(server), new_database(server))
        options = ("--benchmark-database", urls[0], "--token-database", urls[1])
    running = running_world(tmp_path, *urls)
    world = background.do(running.__aenter__())
    background.do(play(world))
    yield options
    background.do(running.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scenario]:
    """The data directory of services that were stopped, to be copied; and what happened."""
    data = tmp_path_factory.mktemp("sound")

    async def played() -> Scenario:
        async with running_world(data) as world:
            return await play(world)

    with Background.running() as background:
        return data, background.do(played())


@dataclass(frozen=True, slots=True)
class Tampered:
    """A copy of sound books, and whoever changes and audits them."""

    data: Path
    scenario: Scenario
    cli: Cli

    def change(self, service: str, statement: str, *values: object) -> None:
        path = self.data / service / f"{service}.db"
        with closing(sqlite3.connect(path)) as connection, connection:
            assert connection.execute(statement, values).rowcount > 0

    def audit(self, *options: str) -> Outcome:
        return self.cli("audit", "--data", str(self.data), *options)

    def first(self) -> str:
        """The first difference that is told, in books that differ."""
        outcome = self.audit()
        assert (outcome.status, outcome.err) == (1, "")
        return next(line for line in outcome.out.splitlines() if line.startswith("  ")).strip()


@pytest.fixture
def books(sound: tuple[Path, Scenario], tmp_path: Path, cli: Cli) -> Tampered:
    """A copy of sound books."""
    data, scenario = sound
    shutil.copytree(data, tmp_path / "copy")
    return Tampered(tmp_path / "copy", scenario, cli)


def test_the_books_of_running_services_agree(cli: Cli, arguments: tuple[str, ...]) -> None:
    outcome = cli("audit", *arguments)

    assert (outcome.status, outcome.out, outcome.err) == (0, AGREES, "")


def test_for_programs_every_figure_is_a_text(books: Tampered) -> None:
    assert books.audit("-o", "json").json == {
        "agrees": True,
        "checks": {
            "ledger": {"entries": "12", "accounts": "5", "holds": "0", "supply": "2005"},
            "contributions": {
                "credits": "6",
                "pending": "0",
                "pending_units": "0",
                "contributions": "4",
                "pools": "3",
            },
            "refunds": {"refunds": "1", "unsent": "0"},
            "payouts": {"payouts": "3", "unsent": "0", "later": "0"},
            "account": {"balance": "45", "owed": "45"},
        },
        "differences": [],
    }


def test_a_ledger_without_a_pool_agrees(
    cli: Cli, world: World, background: Background, tmp_path: Path
) -> None:
    background.do(world.funder())

    outcome = cli("audit", "--data", str(tmp_path))

    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith("ledger: entries 1, accounts 1, holds 0, supply 1,000: agrees\n")


def test_a_credit_that_is_not_decided_yet_is_told_and_is_no_difference(books: Tampered) -> None:
    transfer = books.scenario.refunded
    books.change("benchmark", "DELETE FROM fundings WHERE transfer = ?", transfer)
    books.change("benchmark", "UPDATE cursors SET value = 0 WHERE name = 'notices'")

    outcome = books.audit()

    # The refund that was sent then belongs to no decision.
    assert "credits 6, not decided yet 1 (units 11): agrees" in outcome.out
    assert outcome.out.count("and no such payment was decided") == 1


def test_reading_leaves_the_databases_as_they_were(books: Tampered) -> None:
    databases = [books.data / name / f"{name}.db" for name in ("token", "benchmark")]
    before = [path.read_bytes() for path in databases]

    assert books.audit().status == 0

    assert [path.read_bytes() for path in databases] == before


def test_a_changed_balance_is_named(books: Tampered) -> None:
    address = books.scenario.benchmark
    books.change("token", "UPDATE accounts SET balance = '46' WHERE address = ?", address)

    assert books.first() == f"ledger: {address} has (46, 0), and the log says (45, 0)"


@pytest.mark.parametrize("column", ["tags", "author", "request_id", "recipient"])
def test_an_entry_whose_text_was_changed_is_named(books: Tampered, column: str) -> None:
    value = "[]" if column == "tags" else "another"
    books.change("token", f"UPDATE entries SET {column} = ? WHERE sequence = 3", value)

    assert books.first() == "ledger: entry 3 is not what its hash says"


def test_an_entry_before_which_no_hash_stands_is_named(books: Tampered) -> None:
    books.change("token", "UPDATE entries SET previous_hash = 'none' WHERE sequence = 3")

    assert books.first() == "ledger: entry 3 does not follow from the entry before it"


def test_a_changed_payout_is_named(books: Tampered) -> None:
    pool = books.scenario.paid
    books.change(
        "benchmark", "UPDATE payouts SET quantity = '68' WHERE pool = ? AND line = 0", pool
    )

    assert books.first() == (
        f"payouts: pool {pool}: its contributions are 100, and its plan is to pay 101"
    )


def test_a_changed_receipt_is_named(books: Tampered) -> None:
    pool = books.scenario.nobody
    books.change("benchmark", "UPDATE payouts SET transfer = 'x' WHERE pool = ?", pool)

    first = books.first()

    assert first.startswith(f"payouts: pool {pool}: on the ledger line 0 was paid by ")
    assert first.endswith(", and its receipt is x")


def test_a_changed_contribution_is_named(books: Tampered) -> None:
    books.change("benchmark", "UPDATE contributions SET quantity = '31' WHERE quantity = '30'")

    assert books.first().startswith(
        f"contributions: pool {books.scenario.paid}: the ledger says 30 from "
    )


def test_people_are_shown_the_first_differences_and_programs_all(books: Tampered) -> None:
    books.change("token", "UPDATE entries SET request_id = 'another'")
    books.change("token", "UPDATE entries SET hash = 'none'")

    shown = books.audit()
    whole = books.audit("-o", "json")

    assert whole.status == 1
    lines = [line for line in shown.out.splitlines() if line.startswith("  ")]
    assert len(lines) == SHOWN + 1
    number = len(json.loads(whole.out)["differences"])
    assert lines[-1] == f"  and {number - SHOWN} more; -o json has all"


def test_a_data_directory_that_is_not_there_is_named(cli: Cli, tmp_path: Path) -> None:
    assert cli("audit", "--data", str(tmp_path / "none")).failure == (
        f"the token service's database sqlite:///{tmp_path}/none/token/token.db is not there; name "
        "the data directory, or the database"
    )


def test_the_database_of_another_service_is_named(books: Tampered) -> None:
    token = f"sqlite:///{books.data}/token/token.db"

    assert books.audit("--benchmark-database", token).failure == (
        f"the benchmark service's database {token} has no tables of this service; name the right "
        "database"
    )


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (
            "0004",
            "is of an older release (its tables are 0004, and this release's are 0005); `evalpool "
            "up`, or `evalpool serve benchmark`, migrates it",
        ),
        (
            "9999",
            "is of a newer release than this command (its tables are 9999, and 0005 is the newest "
            "known); use that release's",
        ),
    ],
)
def test_the_database_of_another_release_is_named(books: Tampered, version: str, said: str) -> None:
    books.change("benchmark", "UPDATE alembic_version SET version_num = ?", version)

    assert books.audit().failure.endswith(f"benchmark.db {said}")


def test_a_damaged_file_is_named(books: Tampered) -> None:
    path = books.data / "token" / "token.db"
    path.write_bytes(b"no database at all, whatever its name may say " * 100)

    assert books.audit().failure == (
        f"the token service's database sqlite:///{path} cannot be read: file is not a database"
    )


def test_a_value_that_is_none_is_named(books: Tampered) -> None:
    books.change("token", "UPDATE entries SET kind = 'theft' WHERE sequence = 3")

    assert books.audit().failure.endswith(
        "token.db has a value that is none: 'theft' is not a valid EntryKind"
    )


def test_a_locked_file_is_named(books: Tampered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalpool_runtime.snapshot.BUSY_SECONDS", 0.0)
    path = books.data / "token" / "token.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("UPDATE head SET ledger = ledger")

        assert books.audit().failure == (
            f"the token service's database sqlite:///{path} cannot be read: database is locked"
        )


@pytest.mark.parametrize("url", ["no url", "nosql://here/now"])
def test_what_is_no_url_of_a_database_is_refused(cli: Cli, url: str) -> None:
    assert cli("audit", "--token-database", url).failure.endswith(
        "cannot be opened; give a URL such as sqlite:///path or "
        "postgresql+psycopg://user:password@host/name"
    )


def test_a_password_is_not_shown(cli: Cli, postgresql: str) -> None:
    url = make_url(postgresql).set(
        drivername="postgresql+psycopg", password="secret", database="none"
    )

    failure = cli("audit", "--token-database", url.render_as_string(hide_password=False)).failure

    assert "cannot be read: connection failed" in failure
    assert "secret" not in failure


WITHOUT_EXTRAS = """
import sys
sys.modules["sqlalchemy"] = None
from evalpool.cli import main
sys.argv = ["evalpool", "audit"]
main()
"""


def test_without_the_services_the_extras_are_named() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stderr == (
        "error: the audit needs the package sqlalchemy; install `evalpool[token,benchmark]`\n"
    )

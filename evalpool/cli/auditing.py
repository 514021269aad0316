"""`evalpool audit`: the ledger and the benchmark service's books, read where they lie.

Services' packages are imported here only when it runs, as for `evalpool serve`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalpool.cli.failure import Failure
from evalpool.identity import Identity


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it must be.

    Attributes:
        check: What was compared, such as "payouts".
        subject: The pool, transfer or account; empty where the text names it.
        text: What the one says and what the other says.
    """

    check: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Checked:
    """One check.

    Attributes:
        name: Its name.
        figures: What it went over, by name.
        line: The same for people.
    """

    name: str
    figures: dict[str, int]
    line: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found.

    Attributes:
        checks: What was compared.
        differences: All that was found, in the order of the checks.
    """

    checks: tuple[Checked, ...]
    differences: tuple[Difference, ...]


def database_in(data: Path, service: str) -> str:
    """The URL of a service's database in the data directory of `evalpool up`."""
    return f"sqlite:///{data / service / service}.db"


def benchmark_key_address(data: Path) -> str:
    """The benchmark service's address by its key in a data directory; empty where there is none."""
    path = data / "keys" / "benchmark.json"
    return Identity.load(path).address if path.is_file() else ""


def audit_books(token_url: str, benchmark_url: str, address: str) -> AuditReport:
    """Audit the ledger, and the benchmark service's books against it.

    Args:
        token_url: The token service's database.
        benchmark_url: The benchmark service's database.
        address: The benchmark service's address. Empty: to whom the ledger says that the credits
            went that it decided on.

    Raises:
        Failure: A database cannot be read, or the services' packages are not installed.
    """
    try:
        snapshot = importlib.import_module("evalpool_runtime.snapshot")
        token = importlib.import_module("evalpool_token.store.books")
        head = importlib.import_module("evalpool_token.store.head")
        benchmark = importlib.import_module("evalpool_benchmark.store.books")
        comparison = importlib.import_module("evalpool_benchmark.audit")
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise Failure(
            f"the audit needs the package {package}; install `evalpool[token,benchmark]`"
        ) from error

    def reading(url: str, service: str, books: Any) -> Any:
        return snapshot.snapshot(
            url, service, migrations=books.MIGRATIONS, own_table=books.OWN_TABLE
        )

    try:
        # In this order: what the books tell of is on the ledger that is read after them, and what
        # was on the ledger before them they know of.
        with reading(token_url, "token", token) as connection:
            known_up_to = head.read(connection).sequence
        with reading(benchmark_url, "benchmark", benchmark) as connection:
            books = benchmark.read(connection)
        with reading(token_url, "token", token) as connection:
            decided = [decision.transfer for decision in books.decisions]
            address = address or token.recipient_of(connection, decided)
            ledger = token.read_audited(connection, address)
    except snapshot.UnreadableDatabase as error:
        raise Failure(str(error)) from error
    found = comparison.audit(books, _account(ledger, address, known_up_to))
    return AuditReport(
        checks=(_ledger_check(ledger), *_benchmark_checks(found)),
        differences=(
            *(Difference("ledger", "", text) for text in ledger.differences),
            *(Difference(each.check.value, each.subject, each.text) for each in found.differences),
        ),
    )


def _account(ledger: Any, address: str, known_up_to: int) -> Any:
    """The benchmark service's account, in that service's terms."""
    books = importlib.import_module("evalpool_benchmark.books")
    return books.Account(
        address=address,
        balance=ledger.balance,
        movements=tuple(
            books.Movement(
                sequence=entry.sequence,
                transfer=entry.id,
                sender=entry.sender,
                recipient=entry.recipient,
                quantity=entry.quantity,
                request_id=entry.request_id if entry.author == address else "",
            )
            for entry in ledger.transfers
        ),
        known_up_to=known_up_to,
    )


def _ledger_check(ledger: Any) -> Checked:
    return Checked(
        "ledger",
        {
            "entries": ledger.entries,
            "accounts": ledger.accounts,
            "holds": ledger.holds,
            "supply": ledger.supply,
        },
        f"entries {ledger.entries:,}, accounts {ledger.accounts:,}, holds {ledger.holds:,}, supply "
        f"{ledger.supply:,}",
    )


def _benchmark_checks(found: Any) -> Sequence[Checked]:
    return (
        Checked(
            "contributions",
            {
                "credits": found.credits,
                "pending": found.pending,
                "pending_units": found.pending_units,
                "contributions": found.contributions,
                "pools": found.pools,
            },
            f"{found.contributions:,}, pools {found.pools:,}; credits {found.credits:,}, not "
            f"decided yet {found.pending:,} (units {found.pending_units:,})",
        ),
        Checked(
            "refunds",
            {"refunds": found.refunds, "unsent": found.refunds_due},
            f"{found.refunds:,}, not sent yet {found.refunds_due:,}",
        ),
        Checked(
            "payouts",
            {"payouts": found.payouts, "unsent": found.payouts_due, "later": found.later},
            f"{found.payouts:,}, not sent yet {found.payouts_due:,}"
            + (f"; made while this read, and not compared: {found.later:,}" if found.later else ""),
        ),
        Checked(
            "account",
            {"balance": found.balance, "owed": found.owed},
            f"balance {found.balance:,}, owed {found.owed:,}",
        ),
    )

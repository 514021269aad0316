"""`evalpool audit`: whether the books add up."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from evalpool.cli.app import app
from evalpool.cli.auditing import AuditReport, audit_books, benchmark_key_address, database_in
from evalpool.cli.commands.deployment import Data, default_data
from evalpool.cli.options import Output
from evalpool.cli.output import Format, console, print_json, printable

SHOWN = 20
"""Differences that people are shown; programs get all."""


@app.command()
def audit(
    data: Data = default_data(),  # noqa: B008
    token_database: Annotated[
        str,
        typer.Option(
            envvar="EVALPOOL_TOKEN_DATABASE_URL",
            help="The token service's database, as its own setting names it.",
            show_default="SQLite in the data directory",
        ),
    ] = "",
    benchmark_database: Annotated[
        str,
        typer.Option(
            envvar="EVALPOOL_BENCHMARK_DATABASE_URL",
            help="The benchmark service's database, as its own setting names it.",
            show_default="SQLite in the data directory",
        ),
    ] = "",
    benchmark_address: Annotated[
        str,
        typer.Option(
            help="The benchmark service's address, where its key is not in the data directory.",
            show_default="by the credits that it decided on",
        ),
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Compute every balance, contribution and payout again from the ledger's log.

    For the operator, on the host: it reads the databases of token and benchmark themselves, and
    writes nothing. Services may run meanwhile. Exit status 1: something differs.
    """
    report = audit_books(
        token_database or database_in(data, "token"),
        benchmark_database or database_in(data, "benchmark"),
        benchmark_address or benchmark_key_address(data),
    )
    if output is Format.JSON:
        print_json(_document(report))
    else:
        _print(report)
    if report.differences:
        raise typer.Exit(1)


def _print(report: AuditReport) -> None:
    differ = Counter(each.check for each in report.differences)
    for check in report.checks:
        number = differ[check.name]
        verdict = f"{number:,} difference{'s' * (number > 1)}" if number else "agrees"
        console.print(
            f"{check.name}: {check.line}: {verdict}",
            style="red" if number else None,
        )
    for each in report.differences[:SHOWN]:
        subject = f"{each.subject}: " if each.subject else ""
        console.print(printable(f"  {each.check}: {subject}{each.text}"))
    if len(report.differences) > SHOWN:
        console.print(f"  and {len(report.differences) - SHOWN:,} more; -o json has all")


def _document(report: AuditReport) -> dict[str, object]:
    return {
        "agrees": not report.differences,
        # Quantities are texts, as everywhere: they may be larger than a JSON number holds.
        "checks": {
            check.name: {name: str(value) for name, value in check.figures.items()}
            for check in report.checks
        },
        "differences": [
            {"check": each.check, "subject": each.subject, "difference": each.text}
            for each in report.differences
        ],
    }

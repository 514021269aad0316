"""`evalpool demo`: a funded pool on real models, from the money to the payout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from evalpool.cli.app import app, run
from evalpool.cli.commands.deployment import Workers, default_data, stopped_by_signals
from evalpool.cli.deployment_plan import ProcessPlan, plan_deployment
from evalpool.cli.failure import INTERRUPTED, Failure
from evalpool.cli.leaderboard import print_leaderboard
from evalpool.cli.options import Output
from evalpool.cli.output import Format, console, errors, print_json, print_table
from evalpool.cli.supervisor import deployment
from evalpool.demo import Demonstration, DemonstrationFailed, Result
from evalpool.wallet import AddressBook, Wallets

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="EVALPOOL_DEMO_DATA",
        help="The demonstration's data directory; a second run finds there what it knows.",
        show_default="demo in the user's data directory",
    ),
]


@app.command()
def demo(
    data: Data = default_data() / "demo",  # noqa: B008
    workers: Workers = 1,
    output: Output = Format.TABLE,
) -> None:
    """Run a funded pool on real models, and pay it out.

    Two models and three quantisations are entered by two people on the sample questions. What an
    earlier run in the same data directory has computed is not computed again.
    """
    try:
        result = run(_demo(data, workers))
    except DemonstrationFailed as error:
        raise Failure(str(error)) from error
    if result is None:
        raise Failure("interrupted; run it again to go on", status=INTERRUPTED)
    if output is Format.JSON:
        print_json(
            {
                "leaderboard": result.leaderboard,
                "before": result.before,
                "after": result.after,
                "supply": result.supply,
                "evaluated": result.evaluated,
            }
        )
    else:
        _print(result)
    total = sum(result.after.values())
    if total != result.supply:
        raise Failure(f"the balances sum to {total}, and {result.supply} were minted")


async def _demo(data: Path, workers: int) -> Result | None:
    data = data.resolve()
    plan = plan_deployment(data, workers=workers)
    # People of the demonstration only: the user's own wallets stay as they are.
    wallets, book = Wallets(data / "people"), AddressBook(data / "people")

    def ready(process: ProcessPlan) -> None:
        errors.print(f"{process.name:<10} answers at {process.endpoint}", style="dim")

    def tell(line: str) -> None:
        errors.print(line, highlight=False)

    with stopped_by_signals():
        async with deployment(plan, wallets, book, tell=tell, ready=ready):
            with _Bars() as bars:
                story = Demonstration(data, wallets, book, tell, bars.show)
                try:
                    return await story.tell_all()
                finally:
                    await story.close()
    return None


class _Bars(Progress):
    """One bar a model."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            TextColumn("{task.fields[stage]}"),
            BarColumn(),
            TaskProgressColumn(),
            console=errors,
        )
        self._bars: dict[str, TaskID] = {}

    def show(self, what: str, stage: str, done: int, total: int | None) -> None:
        """Show how far something is."""
        if what not in self._bars:
            self._bars[what] = self.add_task(what, total=None, stage="")
        self.update(self._bars[what], stage=stage, completed=done, total=total)


def _print(result: Result) -> None:
    print_leaderboard(result.leaderboard, names=result.names)
    names = sorted(result.after, key=lambda name: (-result.after[name], name))
    print_table(
        ["account", ">before", ">after", ">change"],
        [
            (
                name,
                f"{result.before[name]:,}",
                f"{result.after[name]:,}",
                f"{result.after[name] - result.before[name]:+,}",
            )
            for name in names
            if result.before[name] or result.after[name]
        ],
        title="Balances",
    )
    total = sum(result.after.values())
    console.print(
        f"sum of balances {total:,} = minted {result.supply:,}"
        if total == result.supply
        else f"sum of balances {total:,} ≠ minted {result.supply:,}",
        style="bold",
        highlight=False,
    )

"""`evalpool up` and `evalpool serve`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from evalpool.cli.app import app, run
from evalpool.cli.failure import Failure
from evalpool.cli.local import ProcessPlan, deployment, introduce, plan_deployment
from evalpool.cli.output import console
from evalpool.cli.serving import serve_service
from evalpool.endpoints import PORTS
from evalpool.wallet import AddressBook, Wallets

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="EVALPOOL_DATA",
        help="The data directory of all services.",
        show_default="the user's data directory",
    ),
]

Workers = Annotated[int, typer.Option(min=1, max=64, help="How many workers.")]


def default_data() -> Path:
    """The data directory unless told otherwise."""
    return Path(platformdirs.user_data_dir("evalpool", appauthor=False))


@app.command()
def up(
    data: Data = default_data(),  # noqa: B008
    workers: Workers = 1,
) -> None:
    """Run the six services on this machine until ctrl-C or SIGTERM."""
    run(_up(data, workers))


async def _up(data: Path, workers: int) -> None:
    plan = plan_deployment(data, workers=workers)
    introduce(plan, Wallets(), AddressBook())

    def ready(process: ProcessPlan) -> None:
        console.print(f"{process.name:<10} {process.endpoint:<16} {process.address}")

    with stopped_by_signals() as stopped:
        async with deployment(
            plan, tell=lambda line: console.print(line, style="yellow"), ready=ready
        ):
            console.print(f"data and logs: {plan.data}\nready; stop with ctrl-C")
            await asyncio.Event().wait()
    if stopped():
        console.print("stopped")


@contextmanager
def stopped_by_signals() -> Iterator[Callable[[], bool]]:
    """End the block, as by cancellation, at the first SIGINT or SIGTERM.

    Yields:
        A function that says whether a signal came.
    """
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    came = False

    def stop() -> None:
        nonlocal came
        # A second signal must not break off the orderly end that the first began.
        if not came and task is not None:
            came = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield lambda: came
    except asyncio.CancelledError:
        if not came or task is None:
            raise
        task.uncancel()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)
def serve(context: typer.Context) -> None:
    """Run one service in the foreground: token, benchmark, dataset, router, worker, embedding."""
    if not context.args or context.args[0] in ("--help", "-h"):
        console.print(
            "usage: evalpool serve SERVICE [--setting VALUE …]\n"
            f"SERVICE is one of {', '.join(PORTS)}; `evalpool serve SERVICE --help` lists its "
            "settings."
        )
        if not context.args:
            raise Failure("name a service")
        return
    serve_service(context.args[0], context.args[1:])

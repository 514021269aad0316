"""`evalpool up` and `evalpool serve`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from evalpool.cli.app import app, run
from evalpool.cli.deployment_plan import DeploymentPlan, ProcessPlan, plan_deployment
from evalpool.cli.failure import Failure
from evalpool.cli.options import Output
from evalpool.cli.output import Format, console, print_json_line
from evalpool.cli.serving import serve_service
from evalpool.cli.supervisor import deployment
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
    output: Output = Format.TABLE,
) -> None:
    """Run the six services on this machine until ctrl-C or SIGTERM.

    Where they listen can be set by EVALPOOL_TOKEN, EVALPOOL_BENCHMARK, … (host:port each).
    """
    run(_up(data, workers, _LINES if output is Format.TABLE else _EVENTS))


@dataclass(frozen=True, slots=True)
class _Voice:
    """How `evalpool up` says what happens."""

    serving: Callable[[ProcessPlan], None]
    ready: Callable[[DeploymentPlan], None]
    trouble: Callable[[str], None]
    stopping: Callable[[], None]
    stopped: Callable[[], None]


_LINES = _Voice(
    serving=lambda p: console.print(f"{p.name:<10} {p.endpoint:<16} {p.address}"),
    ready=lambda plan: console.print(f"data and logs: {plan.data}\nready; stop with ctrl-C"),
    trouble=lambda line: console.print(line, style="yellow"),
    stopping=lambda: console.print("stopping; calls under way get a moment"),
    stopped=lambda: console.print("stopped"),
)
_EVENTS = _Voice(
    serving=lambda p: print_json_line(
        {"event": "serving", "process": p.name, "endpoint": p.endpoint, "address": p.address}
    ),
    ready=lambda plan: print_json_line({"event": "ready", "data": str(plan.data)}),
    trouble=lambda line: print_json_line({"event": "trouble", "message": line}),
    stopping=lambda: print_json_line({"event": "stopping"}),
    stopped=lambda: print_json_line({"event": "stopped"}),
)


async def _up(data: Path, workers: int, say: _Voice) -> None:
    plan = plan_deployment(data, workers=workers)
    with stopped_by_signals() as stopped:
        async with deployment(plan, Wallets(), AddressBook(), tell=say.trouble, ready=say.serving):
            say.ready(plan)
            try:
                await asyncio.Event().wait()
            finally:
                say.stopping()
    if stopped():
        say.stopped()


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
    """Run one service in the foreground."""
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

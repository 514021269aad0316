"""The command line's root: its options, and what a failure prints."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Coroutine, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import typer

from evalpool import __version__
from evalpool.cli.failure import INTERRUPTED, MISUSED, Failure, failure_of
from evalpool.cli.output import errors, printable

T = TypeVar("T")

app = typer.Typer(
    name="evalpool",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; ctrl-C cancels it and ends the command.

    Raises:
        KeyboardInterrupt: It was cancelled by ctrl-C.
    """
    interrupted = False

    async def interruptible() -> T:
        loop, command = asyncio.get_running_loop(), asyncio.current_task()

        def interrupt() -> None:
            nonlocal interrupted
            if interrupted or command is None:
                raise KeyboardInterrupt
            interrupted = True
            command.cancel()

        # asyncio's own way has nothing to wake the loop with: a signal that comes right before the
        # loop begins to wait is seen only when something else happens.
        loop.add_signal_handler(signal.SIGINT, interrupt)
        return await coroutine

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise


def main() -> None:
    """Run the command line; a failure is one clear line and an exit status other than 0."""
    import evalpool.cli.commands  # noqa: F401 - registers every command

    try:
        status = app(prog_name="evalpool", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Exception as error:
        if _is_help(error):
            print(error, file=sys.stderr)
            sys.exit(MISUSED)
        failure = failure_of(error)
        if failure is None:
            raise
        _print(failure, as_json=_asks_for_json(sys.argv[1:]))
        sys.exit(failure.status)
    if status == INTERRUPTED:
        errors.print("interrupted", style="yellow")
    sys.exit(status)


def _print(failure: Failure, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(failure.document, ensure_ascii=False), file=sys.stderr)
    else:
        errors.print(printable(failure.line), style="red")


def _asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, also where it cannot be parsed."""
    return any(
        argument in ("--output=json", "-ojson")
        or (argument in ("--output", "-o") and value == "json")
        for argument, value in pairwise([*arguments, ""])
    )


def _is_help(error: Exception) -> bool:
    """Whether a group was called without a command, which shows its help."""
    return isinstance(error, typer.TyperException) and str(error).startswith("Usage: ")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"evalpool {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Funded benchmarks of language models.

    `evalpool demo` shows a whole pool; `evalpool up` starts the services, which the other commands
    find at EVALPOOL_TOKEN, EVALPOOL_BENCHMARK, EVALPOOL_DATASET, EVALPOOL_ROUTER, EVALPOOL_WORKER
    and EVALPOOL_EMBEDDING (host:port; by default on this machine). Wallets are kept in
    EVALPOOL_HOME.
    """

"""The command line's root: its groups, its options, and what a failure prints."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc
import typer

from evalpool import __version__
from evalpool.cli.failure import Failure
from evalpool.cli.output import errors, printable
from evalpool.errors import CallError
from evalpool.identity import InvalidKeyFile
from evalpool.values import InvalidFields, InvalidValue
from evalpool.wallet import WalletError

T = TypeVar("T")

app = typer.Typer(
    name="evalpool",
    help="Funded benchmarks of language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; ctrl-C cancels it and ends the command."""
    return asyncio.run(coroutine)


def main() -> None:
    """Run the command line; a failure is one clear line and an exit status other than 0."""
    import evalpool.cli.commands  # noqa: F401 - registers every command

    try:
        app(prog_name="evalpool")
    except KeyboardInterrupt:
        errors.print("interrupted", style="yellow")
        sys.exit(130)
    except grpc.aio.AioRpcError as error:
        _fail(_sentence(CallError.of(error)))
    except CallError as error:
        _fail(_sentence(error))
    except (Failure, WalletError, InvalidKeyFile, InvalidValue, InvalidFields) as error:
        _fail(str(error))


def _sentence(error: CallError) -> str:
    unreachable = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    if error.code in unreachable and not error.reason:
        return (
            f"a service cannot be reached ({error.message}); start a deployment with "
            "`evalpool up`, or set EVALPOOL_TOKEN, EVALPOOL_BENCHMARK, … to its endpoints"
        )
    if error.reason == "TOKEN_FOR_ANOTHER_SERVER":
        return (
            f"the server's address is {error.metadata.get('address')}, and was another when you "
            "met it first; if that is right, forget the old one with `evalpool wallet forget "
            "HOST:PORT`"
        )
    return f"{error.message} [{error.reason or error.code.name}]"


def _fail(sentence: str) -> None:
    errors.print(f"error: {printable(sentence)}", style="red")
    sys.exit(1)


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
    """Funded benchmarks of language models."""

"""`evalpool serve SERVICE`: one service in this process.

The only place where the user's package imports services, and only when it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
from typing import Any, NoReturn

from evalpool.cli.failure import MISUSED, Failure
from evalpool.endpoints import PORTS


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        raise Failure(f"{message}; see `{self.prog} --help`", status=MISUSED)


def load_definition(service: str) -> Any:
    """The `ServiceDefinition` of a service.

    Raises:
        Failure: There is no such service, or its extra is not installed.
    """
    if service not in PORTS:
        raise Failure(f'there is no service "{service}"; choose one of {", ".join(PORTS)}')
    try:
        return importlib.import_module(f"evalpool_{service}.service").SERVICE
    except ModuleNotFoundError as error:
        raise Failure(
            f"the {service} service needs the package {error.name}; install `evalpool[{service}]`"
        ) from error


def known_revisions(service: str) -> frozenset[str]:
    """The versions of a service's tables that this release knows.

    Raises:
        Failure: There is no such service, or its extra is not installed.
    """
    load_definition(service)
    from evalpool_runtime.migrations import revisions

    return revisions(f"evalpool_{service}.migrations")


def parse_settings(definition: Any, arguments: list[str]) -> tuple[Any, bool]:
    """A service's settings from flags, over the environment, over defaults.

    Returns:
        The settings, and whether to stop when standard input is closed.

    Raises:
        Failure: An argument is unknown, or settings break their rules; it tells each.
    """
    from evalpool_runtime.settings import InvalidSettings

    parser = _Parser(
        prog=f"evalpool serve {definition.name}",
        description=f"Runs the {definition.name} service until SIGTERM or ctrl-C; unless told "
        f"otherwise at 127.0.0.1:{definition.port}.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--stop-with-stdin",
        action="store_true",
        default=False,
        help="Stop when standard input is closed: when the process that started this one ends.",
    )
    prefix = definition.settings_type.model_config["env_prefix"]
    for name, field in definition.settings_type.model_fields.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            metavar="VALUE",
            help=f"{field.description} Environment: {prefix}{name.upper()}.".replace("%", "%%"),
        )
    values: dict[str, Any] = vars(parser.parse_args(arguments))
    stop_with_stdin: bool = values.pop("stop_with_stdin")
    try:
        return definition.settings_type.load(**values), stop_with_stdin
    except InvalidSettings as error:
        raise Failure("; ".join(str(error).splitlines())) from error


def serve_service(service: str, arguments: list[str]) -> None:
    """Run a service until it is told to stop.

    Raises:
        Failure: It cannot start.
    """
    definition = load_definition(service)
    settings, stop_with_stdin = parse_settings(definition, arguments)

    from evalpool_runtime.logs import configure_logging
    from evalpool_runtime.service import serve
    from evalpool_runtime.start import CannotStart

    configure_logging(service, settings.log_level, settings.log_format)
    if sys.platform != "win32":
        import uvloop

        runner: Any = uvloop.run
    else:
        runner = asyncio.run
    try:
        runner(serve(definition, settings, stop_with_stdin=stop_with_stdin))
    except CannotStart as error:
        raise Failure(str(error)) from error

"""Set-up without the command line: `python -m evalpool.models fetch NAME… [--store DIR]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from evalpool.values import InvalidValue

from .catalogue import CatalogueModel, catalogue, find_model
from .errors import ModelError
from .pull import ensure
from .store import ModelStore, default_store_root


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the named models and print a line for each: name, digest and path.

    Returns:
        The exit status: 0, or 1 with one line on the standard error.
    """
    parser = argparse.ArgumentParser(prog="python -m evalpool.models", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help="fetch models of the catalogue into a store")
    fetch.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="one of " + ", ".join(model.name for model in catalogue()),
    )
    fetch.add_argument(
        "--store", type=Path, default=default_store_root(), help="its folder (%(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        models = [find_model(name) for name in options.names]
        store = ModelStore(options.store)
        for model in models:
            path = _ensure_with_bar(store, model)
            print(f"{model.name}\t{path.name}\t{path}")
    except (ModelError, InvalidValue, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _ensure_with_bar(store: ModelStore, model: CatalogueModel) -> Path:
    # On a terminal only; the output stays free for the result.
    console = Console(stderr=True)
    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as bars:
        task = bars.add_task(model.name, total=model.size_bytes)
        return ensure(
            store, model, lambda done, total: bars.update(task, completed=done, total=total)
        )


if __name__ == "__main__":
    sys.exit(main())

"""`evalpool backup` and `evalpool restore`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from evalpool import __version__
from evalpool.backup import (
    DATABASES,
    Manifest,
    make_backup,
    restore_backup,
    verify_backup,
)
from evalpool.cli.app import app
from evalpool.cli.commands.deployment import Data, default_data
from evalpool.cli.failure import Failure
from evalpool.cli.options import Output
from evalpool.cli.output import Format, console, print_fields, print_json
from evalpool.cli.progress import Tracker
from evalpool.cli.serving import known_revisions

Backup = Annotated[Path, typer.Argument(metavar="BACKUP", help="The backup's folder.")]


@app.command()
def backup(
    backup: Backup,
    data: Data = default_data(),  # noqa: B008
    verify: Annotated[
        bool, typer.Option("--verify", help="Check a backup that is there; make none.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Back up the data directory of `evalpool up`, while it runs or not, into a new folder.

    The folder holds every database as of one moment, the keys, which move the money, and uploaded
    models. Other models, and vectors, are had again.
    """
    with Tracker("verifying" if verify else "backing up", quiet=output is Format.JSON,
                 in_bytes=True) as tracker:  # fmt: skip
        if verify:
            manifest = verify_backup(backup, _shown(tracker))
        else:
            _refuse_databases_elsewhere()
            repository = os.environ.get("EVALPOOL_ROUTER_REPOSITORY_DIR")
            manifest = make_backup(
                data,
                backup,
                repository=Path(repository) if repository else None,
                release=__version__,
                now=_now,
                progress=_shown(tracker),
            )
    _print({"backup": str(backup.absolute())}, manifest, output)
    if output is Format.TABLE and not verify:
        console.print("It holds the keys that move the money: keep it where nobody else reads.")


@app.command()
def restore(
    backup: Backup,
    data: Data = default_data(),  # noqa: B008
    output: Output = Format.TABLE,
) -> None:
    """Verify a backup and make a new data directory of it, for `evalpool up`."""
    schemas = {service: known_revisions(service) for service in (*DATABASES, "worker")}
    with Tracker("restoring", quiet=output is Format.JSON, in_bytes=True) as tracker:
        manifest = restore_backup(backup, data, schemas=schemas, progress=_shown(tracker))
    _print({"data": str(data.absolute())}, manifest, output)


def _now() -> datetime:
    return datetime.now(UTC)


def _shown(tracker: Tracker) -> Any:
    return lambda done, total: tracker.show("", done, total)


def _refuse_databases_elsewhere() -> None:
    """Refuse to back up a part only.

    Raises:
        Failure: The environment, which is that of `evalpool up`, puts a database elsewhere.
    """
    for service in (*DATABASES, "worker"):
        setting = f"EVALPOOL_{service.upper()}_DATABASE_URL"
        if os.environ.get(setting):
            raise Failure(
                f"{setting} is set: the {service} service's database is not in the data directory. "
                "With the benchmark service stopped, take a pg_dump of each database, in the order "
                f"{', '.join(DATABASES)}, and copy keys/ and router/repository/"
            )


def _print(what: dict[str, str], manifest: Manifest, output: Format) -> None:
    if output is Format.JSON:
        print_json(
            {
                **what,
                "release": manifest.release,
                "time": manifest.time.isoformat(),
                "size_bytes": manifest.size_bytes,
                "parts": [
                    {"path": p.path, "size_bytes": p.size_bytes, "sha256": p.sha256,
                     "schema": p.schema}
                    for p in manifest.parts
                ],
            }
        )  # fmt: skip
        return
    print_fields(
        {
            **what,
            "release": manifest.release,
            "as of": manifest.time,
            "parts": len(manifest.parts),
            "bytes": manifest.size_bytes,
        }
    )

"""Restores a backup into a new data directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from .checking import verify_backup
from .errors import BackupError
from .folders import Counting, copy_file, whole_or_nothing
from .manifest import Manifest, Part, read_manifest


def restore_backup(
    backup: Path,
    data: Path,
    *,
    schemas: Mapping[str, Collection[str]],
    progress: Callable[[int, int], None],
) -> Manifest:
    """Verify a backup, and make a data directory of it.

    Args:
        backup: The backup's folder; nothing in it is changed.
        data: The data directory to make: nothing is there, or an empty folder.
        schemas: The revisions that this release's services know of their tables, by service.
        progress: Called with the bytes done and those to do in all, twice those of the backup: all
            is verified before anything is written.

    Returns:
        What was restored.

    Raises:
        BackupError: There is something in the data directory, the backup is damaged, or it was made
            by a newer release.
    """
    _check_empty(data)
    manifest = read_manifest(backup)
    for part in manifest.parts:
        _check_schema(backup, part, manifest, schemas)
    whole = manifest.size_bytes
    verify_backup(backup, lambda done, _: progress(done, 2 * whole))
    count = Counting(lambda done, _: progress(whole + done, 2 * whole), whole)
    with whole_or_nothing(data) as folder:
        for part in manifest.parts:
            written = copy_file(backup / part.path, folder / part.path, part.mode, count)
            if written != (part.size_bytes, part.sha256):
                raise BackupError(f"{backup / part.path} has changed meanwhile; try again")
    return manifest


def _check_empty(data: Path) -> None:
    if not os.path.lexists(data):
        return
    if not data.is_dir():
        raise BackupError(f"{data} is no directory; give a new or an empty one with --data")
    if _is_held(data):
        raise BackupError(
            f"a deployment runs on {data}; restore into a new or an empty directory, and start "
            "`evalpool up` on that"
        )
    if any(data.iterdir()):
        raise BackupError(
            f"{data} is not empty, and nothing is overwritten; give a new or an empty directory "
            "with --data"
        )


def _is_held(data: Path) -> bool:
    """Whether `evalpool up` holds a data directory."""
    lock = data / "deployment.lock"
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _check_schema(
    backup: Path, part: Part, manifest: Manifest, schemas: Mapping[str, Collection[str]]
) -> None:
    if part.service and part.schema not in schemas[part.service]:
        raise BackupError(
            f"{backup / part.path} has tables of the revision {part.schema}, and this release "
            f"knows {max(schemas[part.service])} at most; install evalpool {manifest.release} or "
            "newer"
        )

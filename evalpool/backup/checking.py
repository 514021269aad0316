"""Verifies a backup: every part as it was written, every database whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from .errors import BackupError
from .folders import Counting, digest_of
from .manifest import Manifest, read_manifest


def verify_backup(backup: Path, progress: Callable[[int, int], None]) -> Manifest:
    """Check every part of a backup against its manifest, and every database by SQLite's own check.

    Args:
        backup: The backup's folder; nothing in it is changed.
        progress: Called with the bytes done and those to do in all.

    Returns:
        What is in it.

    Raises:
        BackupError: It is no backup, not finished, or a part is missing or damaged.
    """
    manifest = read_manifest(backup)
    count = Counting(progress, manifest.size_bytes)
    for part in manifest.parts:
        path = backup / part.path
        if not path.is_file() or path.is_symlink():
            raise BackupError(f"{path} is missing in the backup; use another backup")
        if digest_of(path, count) != (part.size_bytes, part.sha256):
            raise BackupError(f"{path} is damaged: it is not as it was written; use another backup")
        if part.service:
            check_database(path)
    return manifest


def check_database(path: Path) -> str:
    """Have SQLite check a database that nobody has open.

    Returns:
        The revision of its tables.

    Raises:
        BackupError: It is not whole.
    """
    try:
        # Immutable: no lock, and no further file beside it.
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
        ) as opened:
            (verdict,) = opened.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise BackupError(f"{path} is a damaged database: {verdict}")
            (revision,) = opened.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise BackupError(
            f"{path} is no database of a service, or a damaged one: {error}"
        ) from error
    return str(revision)

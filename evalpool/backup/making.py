"""Makes a backup of a data directory, while its services run or not."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

from .checking import check_database
from .errors import BackupError
from .folders import Count, Counting, copy_file, digest_of, whole_or_nothing
from .manifest import MANIFEST, Manifest, Part
from .moment import one_moment

DATABASES = ("benchmark", "dataset", "router", "embedding", "token")
"""Services whose databases a deployment has, callers before those whom they call."""

REPOSITORY = "router/repository"

# 4 MiB between two looks at ctrl-C, in pages of 4 KiB.
_PAGES = 1024


def make_backup(
    data: Path,
    target: Path,
    *,
    repository: Path | None = None,
    release: str,
    now: Callable[[], datetime],
    progress: Callable[[int, int], None],
) -> Manifest:
    """Make a backup.

    Args:
        data: The data directory of `evalpool up`.
        target: The folder to make; its parents are made where they are missing.
        repository: Where the router keeps uploaded models. Default: in the data directory.
        release: The release of evalpool, for the manifest.
        now: What time it is.
        progress: Called with the bytes done and those to do in all.

    Returns:
        What is in it.

    Raises:
        BackupError: The target is there already, the data directory is none, something of it is
            missing or damaged, or the target cannot be written.
    """
    if os.path.lexists(target):
        raise BackupError(f"{target} is there already, and nothing is overwritten; name another")
    databases = _databases(data)
    copied = {name: data / name for name in _keys(data)}
    with whole_or_nothing(target) as folder:
        with one_moment([data / name for name in databases]) as seen:
            time = now()
            for digest in _uploads(seen[databases.index("router/router.db")]):
                place = f"sha256/{digest[:2]}/{digest}"
                copied[f"{REPOSITORY}/{place}"] = (repository or data / REPOSITORY) / place
            total = sum(map(_size, seen)) + sum(map(_file_size, copied.values()))
            count = Counting(progress, total)
            parts = [
                _copy_database(connection, data, folder, name, count)
                for connection, name in zip(seen, databases, strict=True)
            ]
        # These change no more: keys never do, and a file of the repository is named by its digest.
        parts += [_copy(source, folder, name, count) for name, source in copied.items()]
        manifest = Manifest(release, time, tuple(parts))
        # The last: without it a folder is no backup.
        _write(folder / MANIFEST, manifest.text())
    return manifest


def _databases(data: Path) -> list[str]:
    """The databases of a data directory, in the order in which they are held."""
    for name in DATABASES:
        if not (data / name / f"{name}.db").is_file():
            raise BackupError(
                f"{data / name / f'{name}.db'} is not there; give the data directory of a "
                "deployment that has been started, with --data"
            )
    workers = sorted(path.parent.name for path in data.glob("worker*/worker.db"))
    held = [(name, name) for name in DATABASES]
    after_router = DATABASES.index("router") + 1
    held[after_router:after_router] = [(worker, "worker") for worker in workers]
    return [f"{folder}/{name}.db" for folder, name in held]


def _keys(data: Path) -> list[str]:
    found = sorted(path.name for path in (data / "keys").glob("*.json"))
    for name in (*DATABASES, "operator"):
        if f"{name}.json" not in found:
            raise BackupError(
                f"{data / 'keys' / f'{name}.json'} is not there, and without it a restored "
                "deployment would be another party; put it back first"
            )
    return [f"keys/{name}" for name in found]


def _uploads(router: sqlite3.Connection) -> list[str]:
    """The digests of the uploaded models that the router answers for."""
    found = router.execute("SELECT digest FROM models ORDER BY digest").fetchall()
    return [digest for (digest,) in found]


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError as error:
        raise BackupError(
            f"{path} is missing, and the deployment cannot do without it; put it back first"
        ) from error


def _size(database: sqlite3.Connection) -> int:
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = database.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(page_bytes)


def _copy_database(
    connection: sqlite3.Connection, data: Path, folder: Path, name: str, count: Count
) -> Part:
    target = folder / name
    target.parent.mkdir(mode=0o700)
    whole, before = _size(connection), 0

    def step(_status: int, left: int, pages: int) -> None:
        nonlocal before
        done = whole * (pages - left) // max(pages, 1)
        count(done - before)
        before = done

    try:
        with closing(sqlite3.connect(target)) as copy:
            connection.backup(copy, pages=_PAGES, progress=step)
    except sqlite3.Error as error:
        raise BackupError(f"{name} cannot be copied to {target}: {error}") from error
    revision = check_database(target)
    mode = stat.S_IMODE((data / name).stat().st_mode)
    target.chmod(mode)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    size, digest = digest_of(target, lambda _: None)
    return Part(name, size, digest, mode, revision)


def _copy(source: Path, folder: Path, name: str, count: Count) -> Part:
    mode = stat.S_IMODE(source.stat().st_mode)
    size, digest = copy_file(source, folder / name, mode, count)
    if name.startswith(REPOSITORY) and digest != source.name:
        raise BackupError(
            f"{source} is damaged: it has not the digest of its name; have its owner upload it "
            "again, or restore it from an older backup"
        )
    return Part(name, size, digest, mode)


def _write(path: Path, text: str) -> None:
    with path.open("x") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())

"""Folders that are whole or not there, and files that arrive as they left."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from evalpool.models.disk import sync_folder, writing

from .errors import BackupError

_CHUNK = 1024 * 1024

Count = Callable[[int], None]
"""Called with the number of bytes that have been done since the last time."""


@contextmanager
def whole_or_nothing(target: Path) -> Iterator[Path]:
    """Fill a new folder; it gets its name when it is whole and on the disk.

    Args:
        target: What it will be: nothing is there yet, or an empty folder.

    Yields:
        The folder to fill, a sibling that only its owner can enter. It is gone where the block
        raises.

    Raises:
        BackupError: Something has come to be at the target meanwhile, or nothing can be put there.
    """
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(
        tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".unfinished", dir=target.parent)
    )
    try:
        with writing(folder):
            yield folder
            for place, _, _ in os.walk(folder):
                sync_folder(Path(place))
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise BackupError(
                    f"{target} has come to be there meanwhile; name another folder"
                ) from error
            raise
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def copy_file(source: Path, target: Path, mode: int, count: Count) -> tuple[int, str]:
    """Copy a file onto the disk.

    Args:
        source: From where.
        target: To where; nothing is there, and its folder is made where it is missing.
        mode: Its permissions.
        count: Called as it goes on.

    Returns:
        Its size in bytes and its SHA-256.
    """
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reader:
        # A key is nobody else's to read at any moment.
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as writer:
            while chunk := reader.read(_CHUNK):
                writer.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                count(len(chunk))
            os.fchmod(writer.fileno(), mode)
            writer.flush()
            os.fsync(writer.fileno())
    return size, digest.hexdigest()


def digest_of(path: Path, count: Count) -> tuple[int, str]:
    """A file's size in bytes and its SHA-256.

    Args:
        path: The file.
        count: Called as it goes on.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as reader:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            count(len(chunk))
    return size, digest.hexdigest()


class Counting:
    """Adds up bytes for whoever shows how far it is.

    Args:
        progress: Called with the bytes done and those to do in all.
        total: Those to do.
    """

    def __init__(self, progress: Callable[[int, int], None], total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def __call__(self, done: int) -> None:
        """Count bytes that have been done."""
        self._done += done
        self._progress(min(self._done, self._total), self._total)

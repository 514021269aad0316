"""The disk that files are written to: when it is full, and when a name on it is durable."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StoreFull
from .locks import open_folder

# The disk is full; the user's share of it is; a file may not grow as long.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Tell that there is no room for what is written into a folder.

    Raises:
        StoreFull: There is none.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StoreFull(
            f"the disk of {folder} has no room for the file ({error.strerror}); make room and try "
            "again"
        ) from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = open_folder(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Locks that the kernel gives up when their process dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .progress import Progress


def try_exclusive(descriptor: int) -> bool:
    """Lock an open file or folder for this descriptor alone; False if somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def shared(descriptor: int) -> None:
    """Lock an open file together with others who share it; waits for an exclusive holder."""
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def open_folder(path: Path) -> int:
    """Open a folder, to lock it or to make its entries durable."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def across_processes(path: Path) -> FileLock:
    """A lock of one holder among all threads and processes that use this path."""
    # Acquired in one thread and released in another where callers move work to threads.
    return FileLock(path, thread_local=False)


@contextmanager
def waiting(path: Path, progress: Progress, total: int | None) -> Iterator[None]:
    """Hold the lock at a path, waiting for it; `progress` is called meanwhile and may cancel."""
    lock = across_processes(path)
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            progress(0, total)
    try:
        yield
    finally:
        lock.release()

"""The data directory: one process at a time."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from evalpool_runtime.start import CannotStart


class DataDirectoryInUse(CannotStart):
    """Another process works on this data directory."""


class DataDirectory:
    """A service's directory, locked while the service runs.

    SQLite and the model store are made for one writer; a second process on the same files is a
    mistake in the set-up, and is told so at once.
    """

    def __init__(self, path: Path, service: str) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path / f"{service}.lock")

    def acquire(self) -> None:
        """Take the directory.

        Raises:
            DataDirectoryInUse: It is taken.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise DataDirectoryInUse(
                f"{self.path} is in use by another process ({self._lock.lock_file}); stop it, or "
                "choose another --data-dir"
            ) from error

    def release(self) -> None:
        """Give the directory back."""
        self._lock.release()

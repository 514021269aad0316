"""Where a worker's model files are kept, and how much of the disk they may take."""

from __future__ import annotations

import shutil
from pathlib import Path

from evalpool.models import ModelStore


def open_store(folder: Path, most: int | None) -> ModelStore:
    """Open the store, which other workers of this machine may share.

    Unless it is told how much, it takes half of what its files and the file system's free space
    are together. This does not change as it fills, so that workers that share it agree, however
    late one starts; the other half is left to databases, uploads and everything else.

    Args:
        folder: The store's folder, made if it does not exist.
        most: Bytes of files to keep at most; 0 for no limit, None for half of the room.
    """
    store = ModelStore(folder)
    if most is None:
        held = sum(file.size_bytes for file in store.entries())
        most = (held + shutil.disk_usage(folder).free) // 2
    store.capacity_bytes = most or None
    return store

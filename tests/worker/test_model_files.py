"""Model files take a bounded part of the disk, and the least recently used make room."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from evalpool.models import ModelStore, StoreFull
from evalpool_worker.model_files import open_store
from evalpool_worker.settings import WorkerSettings

SIZE = 1000


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on a disk that has room for ten files."""
    folder = tmp_path / "models"

    def usage(_path: Path) -> Usage:
        used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return Usage(20 * SIZE, 10 * SIZE + used, 10 * SIZE - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return folder


def put(store: ModelStore, number: int) -> str:
    return store.put_stream([number.to_bytes(2, "big") * (SIZE // 2)], size=SIZE)


def test_unless_told_otherwise_files_take_half_of_the_room(disk: Path) -> None:
    store = open_store(disk, WorkerSettings.load().store_bytes)
    assert store.capacity_bytes == 5 * SIZE
    digests = [put(store, number) for number in range(7)]
    assert [store.has(digest) for digest in digests] == [False] * 2 + [True] * 5


def test_workers_that_share_the_files_agree_however_late_one_starts(disk: Path) -> None:
    first = open_store(disk, None)
    for number in range(4):
        put(first, number)
    assert open_store(disk, None).capacity_bytes == first.capacity_bytes == 5 * SIZE


def test_a_file_in_use_never_goes(disk: Path) -> None:
    store = open_store(disk, 2 * SIZE)
    first, second = put(store, 1), put(store, 2)
    with store.pinned(first):
        third = put(open_store(disk, 2 * SIZE), 3)
        assert [store.has(digest) for digest in (first, second, third)] == [True, False, True]
        with store.pinned(third), pytest.raises(StoreFull):
            put(store, 4)


def test_nought_is_no_limit(disk: Path) -> None:
    assert open_store(disk, WorkerSettings.load(store_bytes=0).store_bytes).capacity_bytes is None

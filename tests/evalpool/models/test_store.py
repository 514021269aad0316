"""The content-addressed store, in one process."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalpool.models import (
    DigestMismatch,
    ModelInUse,
    ModelNotFound,
    ModelStore,
    SizeMismatch,
    StoreFull,
)
from evalpool.values import InvalidValue
from tests.evalpool.models.conftest import Clock
from tests.evalpool.models.contents import A, B, C, D, digest_of, parts
from tests.evalpool.models.full_disk import room_for


def test_a_file_is_found_by_its_digest(store: ModelStore, tmp_path: Path) -> None:
    source = tmp_path / "a.gguf"
    source.write_bytes(A)
    digest = store.put_file(source, digest_of(A))
    assert digest == digest_of(A)
    assert store.has(digest)
    assert store.size(digest) == 100
    path = store.path(digest)
    assert path == store.root / "sha256" / digest[:2] / digest
    assert path.read_bytes() == A
    assert source.exists()


def test_a_kept_file_is_read_only(store: ModelStore) -> None:
    path = store.path(store.put_stream([A]))
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_the_same_content_is_kept_once(store: ModelStore) -> None:
    assert store.put_stream([A[:30], A[30:]]) == store.put_stream([A])
    assert [entry.digest for entry in store.entries()] == [digest_of(A)]


def test_entries_tell_size_use_and_pins(tmp_path: Path, clock: Clock) -> None:
    store = ModelStore(tmp_path / "store", clock=clock)
    store.put_stream([A])
    store.put_stream([B])
    with store.pinned(digest_of(B)):
        entries = {entry.digest: entry for entry in store.entries()}
    assert entries.keys() == {digest_of(A), digest_of(B)}
    assert entries[digest_of(A)].size_bytes == 100
    assert entries[digest_of(B)].pinned
    assert not entries[digest_of(A)].pinned
    assert entries[digest_of(A)].last_used < entries[digest_of(B)].last_used
    assert not any(entry.pinned for entry in store.entries())


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_what_is_no_digest_is_refused_everywhere(store: ModelStore, digest: str) -> None:
    with pytest.raises(InvalidValue):
        store.has(digest)
    with pytest.raises(InvalidValue):
        store.path(digest)
    with pytest.raises(InvalidValue):
        store.remove(digest)
    with pytest.raises(InvalidValue):
        store.put_stream([A], digest=digest)
    with pytest.raises(InvalidValue):
        store.begin_upload(digest, 100)
    with pytest.raises(InvalidValue), store.pinned(digest):
        pass


def test_what_is_not_there_is_not_found(store: ModelStore) -> None:
    missing = digest_of(A)
    assert not store.has(missing)
    with pytest.raises(ModelNotFound):
        store.path(missing)
    with pytest.raises(ModelNotFound):
        store.size(missing)
    with pytest.raises(ModelNotFound):
        store.remove(missing)
    with pytest.raises(ModelNotFound), store.pinned(missing):
        pass


def test_a_content_with_another_digest_is_not_kept(store: ModelStore) -> None:
    with pytest.raises(DigestMismatch) as caught:
        store.put_stream([A], digest=digest_of(B))
    assert caught.value.actual == digest_of(A)
    assert store.entries() == ()
    assert parts(store) == []


@pytest.mark.parametrize("size", [99, 101])
def test_a_content_of_another_size_is_not_kept(store: ModelStore, size: int) -> None:
    with pytest.raises(SizeMismatch):
        store.put_stream([A], size=size)
    assert store.entries() == ()
    assert parts(store) == []


def test_a_stream_that_fails_leaves_nothing(store: ModelStore) -> None:
    def broken() -> Iterator[bytes]:
        yield A
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        store.put_stream(broken())
    assert store.entries() == ()
    assert parts(store) == []


def test_a_damaged_file_is_noticed_and_removed(store: ModelStore) -> None:
    digest = store.put_stream([A])
    store.verify(digest)
    path = store.path(digest)
    path.chmod(0o644)
    path.write_bytes(B)
    with pytest.raises(DigestMismatch):
        store.verify(digest)
    assert not store.has(digest)


def test_a_removed_file_is_gone(store: ModelStore) -> None:
    digest = store.put_stream([A])
    store.remove(digest)
    assert not store.has(digest)
    assert store.entries() == ()


def test_a_pinned_file_is_not_removed(store: ModelStore) -> None:
    digest = store.put_stream([A])
    with store.pinned(digest), store.pinned(digest) as path:
        with pytest.raises(ModelInUse):
            store.remove(digest)
        assert path.read_bytes() == A
    store.remove(digest)


def test_the_file_unused_the_longest_makes_room(small: ModelStore) -> None:
    for content in (A, B, C):
        small.put_stream([content])
    small.path(digest_of(A))
    small.put_stream([D])
    assert not small.has(digest_of(B))
    assert all(small.has(digest_of(content)) for content in (A, C, D))


def test_a_pin_counts_as_a_use(small: ModelStore) -> None:
    for content in (A, B, C):
        small.put_stream([content])
    with small.pinned(digest_of(A)):
        pass
    small.put_stream([D])
    assert small.has(digest_of(A))
    assert not small.has(digest_of(B))


def test_a_pinned_file_is_never_evicted(small: ModelStore) -> None:
    for content in (A, B, C):
        small.put_stream([content])
    with small.pinned(digest_of(A)), small.pinned(digest_of(B)):
        small.path(digest_of(C))
        small.put_stream([D])
    assert not small.has(digest_of(C))
    assert all(small.has(digest_of(content)) for content in (A, B, D))


def test_a_store_full_of_pinned_files_refuses_and_evicts_nothing(small: ModelStore) -> None:
    for content in (A, B, C):
        small.put_stream([content])
    with (
        small.pinned(digest_of(A)),
        small.pinned(digest_of(B)),
        pytest.raises(StoreFull, match="300"),
    ):
        small.put_stream([D, D])
    assert all(small.has(digest_of(content)) for content in (A, B, C))
    assert parts(small) == []


@pytest.mark.parametrize("size", [301, None])
def test_what_can_never_fit_evicts_nothing(small: ModelStore, size: int | None) -> None:
    small.put_stream([A])
    with pytest.raises(StoreFull):
        small.put_stream([b"x" * 301], size=size)
    assert small.has(digest_of(A))
    assert parts(small) == []


def test_a_foreign_file_in_the_folders_does_no_harm(store: ModelStore) -> None:
    for place in ("partial/.notes", "pins/.notes", "sha256/.notes", "sha256/ab"):
        (store.root / place).touch()
    again = ModelStore(store.root, capacity_bytes=1000)
    again.put_stream([A])
    assert [entry.digest for entry in again.entries()] == [digest_of(A)]


def test_many_threads_put_the_same_content(store: ModelStore) -> None:
    content = os.urandom(50_000)
    digests: list[str] = []
    threads = [
        threading.Thread(target=lambda: digests.append(store.put_stream([content])))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests == [digest_of(content)] * 8
    assert parts(store) == []


def test_a_content_that_fills_the_disk_leaves_nothing(store: ModelStore) -> None:
    with room_for(1_000_000), pytest.raises(StoreFull, match=f"the disk of {store.root}"):
        store.put_stream([bytes(3_000_000)])
    assert store.entries() == ()
    assert parts(store) == []

"""The content-addressed store, in one process."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalpool.models import (
    DigestMismatch,
    InvalidGguf,
    ModelInUse,
    ModelNotFound,
    ModelStore,
    SizeMismatch,
    StoreFull,
    parse_source,
    read_gguf,
)
from evalpool.values import InvalidValue


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


A, B, C, D = (bytes([letter]) * 100 for letter in b"abcd")


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def small(tmp_path: Path, clock: Clock) -> ModelStore:
    """Holds three of the contents."""
    return ModelStore(tmp_path / "small", capacity_bytes=300, clock=clock)


def parts(store: ModelStore) -> list[Path]:
    return list((store.root / "partial").iterdir())


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


def test_an_upload_comes_in_pieces(store: ModelStore) -> None:
    with store.begin_upload(digest_of(A), 100) as upload:
        assert upload.offset == 0
        upload.write(A[:40])
        assert upload.offset == 40
        upload.write(A[40:])
        path = upload.commit()
    assert path == store.path(digest_of(A))
    assert parts(store) == []


def test_an_upload_goes_on_where_it_stopped(store: ModelStore) -> None:
    with store.begin_upload(digest_of(A), 100) as upload:
        upload.write(A[:40])
    assert not store.has(digest_of(A))
    again = ModelStore(store.root)
    with again.begin_upload(digest_of(A), 100) as upload:
        assert upload.offset == 40
        upload.write(A[40:])
        upload.commit()
    assert store.path(digest_of(A)).read_bytes() == A


def test_an_upload_may_move_between_threads(store: ModelStore) -> None:
    with store.begin_upload(digest_of(A), 100) as upload:
        for part in (A[:50], A[50:]):
            thread = threading.Thread(target=upload.write, args=(part,))
            thread.start()
            thread.join()
        thread = threading.Thread(target=upload.commit)
        thread.start()
        thread.join()
    assert store.has(digest_of(A))


def test_an_upload_with_bytes_missing_is_not_kept_but_may_go_on(store: ModelStore) -> None:
    with store.begin_upload(digest_of(A), 100) as upload:
        upload.write(A[:40])
        with pytest.raises(SizeMismatch, match="40 of the announced 100"):
            upload.commit()
    with store.begin_upload(digest_of(A), 100) as upload:
        assert upload.offset == 40


def test_an_upload_with_too_many_bytes_is_thrown_away(store: ModelStore) -> None:
    with (
        store.begin_upload(digest_of(A), 100) as upload,
        pytest.raises(SizeMismatch, match="announced 100"),
    ):
        upload.write(A + b"x")
    assert parts(store) == []


def test_an_upload_of_another_content_is_thrown_away(store: ModelStore) -> None:
    with store.begin_upload(digest_of(A), 100) as upload:
        upload.write(B)
        with pytest.raises(DigestMismatch):
            upload.commit()
    assert store.entries() == ()
    assert parts(store) == []


def test_an_uploads_offset_is_told_without_going_on_with_it(store: ModelStore) -> None:
    assert store.upload_offset(digest_of(A), 100, owner="alice") == 0
    with store.begin_upload(digest_of(A), 100, owner="alice") as upload:
        upload.write(A[:40])
        assert store.upload_offset(digest_of(A), 100, owner="alice") == 40
    assert store.upload_offset(digest_of(A), 100, owner="alice") == 40
    assert store.upload_offset(digest_of(A), 100, owner="mallory") == 0
    with pytest.raises(InvalidValue):
        store.upload_offset("../x", 100)


def test_an_upload_that_its_check_refuses_is_thrown_away(store: ModelStore) -> None:
    with store.begin_upload(digest_of(A), 100) as upload:
        upload.write(A)
        with pytest.raises(InvalidGguf):
            upload.commit(read_gguf)
    assert store.entries() == ()
    assert parts(store) == []


def test_an_upload_is_checked_on_its_whole_content(store: ModelStore) -> None:
    seen: list[bytes] = []
    with store.begin_upload(digest_of(A), 100) as upload:
        upload.write(A)
        upload.commit(lambda path: seen.append(path.read_bytes()))
    assert seen == [A]
    assert store.has(digest_of(A))


def test_an_upload_that_is_given_up_leaves_nothing(store: ModelStore) -> None:
    with store.begin_upload(digest_of(A), 100) as upload:
        upload.write(A[:40])
        upload.discard()
    assert parts(store) == []


def test_an_upload_without_a_byte_leaves_nothing(store: ModelStore) -> None:
    with store.begin_upload(digest_of(A), 100):
        pass
    assert parts(store) == []


def test_one_owner_sends_a_content_once_at_a_time(store: ModelStore) -> None:
    with store.begin_upload(digest_of(A), 100, owner="alice") as upload:
        upload.write(A[:10])
        with pytest.raises(ModelInUse):
            store.begin_upload(digest_of(A), 100, owner="alice")
    with store.begin_upload(digest_of(A), 100, owner="alice") as upload:
        assert upload.offset == 10


def test_nobody_can_spoil_another_owners_upload(store: ModelStore) -> None:
    with store.begin_upload(digest_of(A), 100, owner="mallory") as upload:
        upload.write(B[:40])
    with store.begin_upload(digest_of(A), 100, owner="alice") as upload:
        assert upload.offset == 0
        upload.write(A)
        upload.commit()
    assert store.has(digest_of(A))


@pytest.mark.parametrize("size", [0, -1])
def test_an_upload_of_nothing_is_refused(store: ModelStore, size: int) -> None:
    with pytest.raises(InvalidValue):
        store.begin_upload(digest_of(b""), size)


def test_an_upload_reserves_its_room_from_the_start(small: ModelStore) -> None:
    small.put_stream([A])
    with small.begin_upload(digest_of(b"x" * 250), 250):
        assert not small.has(digest_of(A))
        with pytest.raises(StoreFull):
            small.begin_upload(digest_of(B), 100)
    small.put_stream([B])


def test_an_upload_that_can_not_fit_is_refused_at_once(small: ModelStore) -> None:
    small.put_stream([A])
    with pytest.raises(StoreFull):
        small.begin_upload(digest_of(B), 301)
    assert small.has(digest_of(A))
    assert parts(small) == []


def test_leftovers_of_a_crash_are_removed(store: ModelStore, tmp_path: Path) -> None:
    put = store.root / "partial" / "put-abc.100"
    put.mkdir()
    (put / "content").write_bytes(A[:10])
    empty = store.root / "partial" / "upload-abc.100"
    empty.mkdir()
    fetched = store.root / "partial" / "fetch-abc.100"
    (fetched / "content.wheel-xyz").mkdir(parents=True)
    (fetched / "content.wheel-xyz" / "a.whl").write_bytes(b"wheel")
    (fetched / "content").write_bytes(A[:10])
    pin = store.root / "pins" / digest_of(A)
    pin.touch()
    ModelStore(store.root)
    assert parts(store) == [fetched]
    assert [entry.name for entry in fetched.iterdir()] == ["content"]
    assert not pin.exists()


def test_a_part_that_nobody_went_on_with_is_removed(store: ModelStore) -> None:
    with store.begin_upload(digest_of(A), 100) as upload:
        upload.write(A[:40])
    (content,) = (store.root / "partial").glob("*/content")
    written = content.stat().st_mtime
    ModelStore(store.root, partial_seconds=60.0, clock=lambda: written + 59)
    assert content.exists()
    ModelStore(store.root, partial_seconds=60.0, clock=lambda: written + 61)
    assert parts(store) == []


def test_a_part_that_is_being_written_survives_cleaning(store: ModelStore) -> None:
    with store.begin_upload(digest_of(A), 100) as upload:
        upload.write(A)
        ModelStore(store.root, partial_seconds=0.0, clock=lambda: 2e12)
        upload.commit()
    assert store.has(digest_of(A))


def test_a_foreign_file_in_the_folders_does_no_harm(store: ModelStore) -> None:
    for place in ("partial/.notes", "pins/.notes", "sha256/.notes", "sha256/ab"):
        (store.root / place).touch()
    again = ModelStore(store.root, capacity_bytes=1000)
    again.put_stream([A])
    assert [entry.digest for entry in again.entries()] == [digest_of(A)]


def test_a_source_without_a_digest_is_remembered(store: ModelStore) -> None:
    source = parse_source("hf:owner/repo/a.gguf")
    assert store.learned_digest(source) is None
    store.learn_digest(source, digest_of(A))
    assert ModelStore(store.root).learned_digest(source) == digest_of(A)
    assert store.learned_digest(parse_source("hf:owner/repo/b.gguf")) is None


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

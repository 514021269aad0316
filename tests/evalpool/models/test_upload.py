"""Content that comes in pieces."""

from __future__ import annotations

import os
import threading

import pytest

from evalpool.models import (
    DigestMismatch,
    InvalidGguf,
    ModelInUse,
    ModelStore,
    SizeMismatch,
    StoreFull,
    read_gguf,
)
from evalpool.values import InvalidValue
from tests.evalpool.models.contents import A, B, digest_of, parts
from tests.evalpool.models.full_disk import room_for


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


def test_an_upload_that_fills_the_disk_goes_on_where_there_is_room_again(
    store: ModelStore,
) -> None:
    content = os.urandom(3_000_000)
    with store.begin_upload(digest_of(content), len(content)) as upload:
        with room_for(1_000_000), pytest.raises(StoreFull, match=f"the disk of {store.root}"):
            upload.write(content)
        assert upload.offset == 1_000_000
        upload.write(content[1_000_000:2_000_000])
    with store.begin_upload(digest_of(content), len(content)) as upload:
        assert upload.offset == 2_000_000
        upload.write(content[2_000_000:])
        upload.commit()
    assert store.path(digest_of(content)).read_bytes() == content


def test_an_upload_that_cannot_be_begun_leaves_its_part_to_others(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.begin_upload(digest_of(A), 100) as upload:
        upload.write(A[:40])
    with monkeypatch.context() as patched:
        patched.setattr("evalpool.models.upload._CHUNK", "no number")
        with pytest.raises(TypeError):
            store.begin_upload(digest_of(A), 100)
    with store.begin_upload(digest_of(A), 100) as upload:
        assert upload.offset == 40

"""Files on their way: what becomes of them when their writers end or die."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalpool.models import ModelStore
from evalpool.models.locks import try_exclusive
from tests.evalpool.models.contents import A, digest_of, parts


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


def test_a_writer_that_comes_while_another_one_ends_gets_a_part_of_its_own(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one ends between the other's opening of the part's folder and its lock."""
    first = store.begin_upload(digest_of(A), 100)
    first.write(A)

    def after_the_first_has_ended(descriptor: int) -> bool:
        first.discard()
        first.close()
        monkeypatch.undo()
        return try_exclusive(descriptor)

    monkeypatch.setattr("evalpool.models.partial.try_exclusive", after_the_first_has_ended)
    with store.begin_upload(digest_of(A), 100) as second:
        assert second.offset == 0
        second.write(A)
        second.commit()
    assert store.has(digest_of(A))
    assert parts(store) == []

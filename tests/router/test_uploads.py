from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from evalpool.models import find_model
from evalpool_router.uploads import Announcement
from evalpool_runtime.errors import (
    Aborted,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    ResourceExhausted,
    reasons,
)
from tests.conftest import OpenDatabase
from tests.evalpool.models.gguf_writer import Gguf
from tests.router.shelf import ALICE, BOB, CONTENT, DIGEST, SIZE, Shelf, stream


async def test_an_upload_is_kept_with_what_its_header_says(shelf: Shelf) -> None:
    assert await shelf.upload() == (ALICE, False)
    model = await shelf.find(DIGEST)
    assert (model.name, model.owner, model.size_bytes) == ("tiny", ALICE, SIZE)
    assert (model.context_length, model.quantisation, model.license) == (512, "Q8_0", "apache-2.0")
    assert model.create_time == shelf.clock.now()
    assert shelf.files.path(DIGEST).read_bytes() == CONTENT
    assert (await shelf.find("tiny")).digest == DIGEST


async def test_an_upload_goes_on_where_it_broke_off(shelf: Shelf) -> None:
    announced = Announcement(DIGEST, SIZE, "tiny", 0)
    with pytest.raises(ConnectionError):
        await shelf.take(
            ALICE, announced, stream([CONTENT[:100], CONTENT[100:250]], break_off=True)
        )
    assert await shelf.uploads.offset(ALICE, DIGEST) == (250, False)
    # The part is its owner's alone.
    assert await shelf.uploads.offset(BOB, DIGEST) == (0, False)
    assert await shelf.upload(offset=250) == (ALICE, False)
    assert await shelf.uploads.offset(ALICE, DIGEST) == (SIZE, True)
    assert shelf.files.path(DIGEST).read_bytes() == CONTENT


async def test_an_upload_that_ends_early_can_be_gone_on_with(shelf: Shelf) -> None:
    with pytest.raises(Aborted) as refusal:
        await shelf.upload(CONTENT[:300], digest=DIGEST, size=SIZE)
    assert refusal.value.reason == reasons.ERROR_REASON_UPLOAD_OFFSET
    assert refusal.value.metadata["offset"] == "300"
    assert await shelf.upload(offset=300) == (ALICE, False)


async def test_an_upload_must_begin_where_the_stored_part_ends(shelf: Shelf) -> None:
    with pytest.raises(Aborted):
        await shelf.upload(CONTENT[:300], digest=DIGEST, size=SIZE)
    for offset in (0, 299, 301):
        with pytest.raises(Aborted) as refusal:
            await shelf.upload(offset=offset)
        assert refusal.value.metadata["offset"] == "300"
    assert await shelf.upload(offset=300) == (ALICE, False)


async def test_the_same_file_is_stored_once_and_its_first_uploader_owns_it(shelf: Shelf) -> None:
    await shelf.upload()
    assert await shelf.upload(owner=BOB, name="mine") == (ALICE, True)
    assert await shelf.upload() == (ALICE, True)
    assert shelf.kept() == [DIGEST]
    assert await shelf.taken(BOB) == 0
    assert await shelf.uploads.offset(BOB, DIGEST) == (SIZE, True)


async def test_of_two_uploads_at_once_the_one_that_ends_first_owns_the_file(
    shelf: Shelf,
) -> None:
    async def interrupted() -> AsyncIterator[bytes]:
        yield CONTENT[:100]
        assert await shelf.upload(owner=BOB) == (BOB, False)
        yield CONTENT[100:]

    announced = Announcement(DIGEST, SIZE, "tiny", 0)
    assert await shelf.take(ALICE, announced, interrupted()) == (BOB, True)
    assert (await shelf.taken(ALICE), await shelf.taken(BOB)) == (0, SIZE)


async def test_one_owner_sends_a_file_once_at_a_time(shelf: Shelf) -> None:
    async def interrupted() -> AsyncIterator[bytes]:
        yield CONTENT[:100]
        with pytest.raises(Aborted) as refusal:
            await shelf.upload()
        assert refusal.value.message.startswith("header.digest: ")
        yield CONTENT[100:]

    await shelf.take(ALICE, Announcement(DIGEST, SIZE, "tiny", 0), interrupted())
    assert shelf.kept() == [DIGEST]


async def test_a_file_of_the_catalogue_needs_no_upload(shelf: Shelf) -> None:
    known = find_model("SmolLM2-135M-Instruct.Q4_1")
    announced = Announcement(known.sha256 or "", known.size_bytes or 0, "mine", 0)
    assert await shelf.take(ALICE, announced, stream([])) == ("", True)
    assert (await shelf.find(announced.digest)).source.startswith("pypi:")
    assert await shelf.taken(ALICE) == 0


async def test_the_quota_counts_models_and_open_uploads(
    database: OpenDatabase, tmp_path: Path
) -> None:
    shelf = Shelf(await database("evalpool_router.migrations"), tmp_path, owner_bytes=2 * SIZE)
    await shelf.upload()
    other = Gguf(version=2).to_bytes()
    with pytest.raises(Aborted):
        await shelf.upload(other[:100], digest=hashlib.sha256(other).hexdigest(), size=SIZE)
    third = CONTENT + b"\0"
    with pytest.raises(ResourceExhausted) as refusal:
        await shelf.upload(third)
    assert refusal.value.reason == reasons.ERROR_REASON_UPLOAD_QUOTA
    assert refusal.value.message.startswith("header.size_bytes: ")
    # Going on with the one that is open counts it once, and another owner has their own quota.
    await shelf.upload(other, offset=100)
    await shelf.upload(third, owner=BOB)


async def test_all_uploads_together_are_bounded(database: OpenDatabase, tmp_path: Path) -> None:
    shelf = Shelf(await database("evalpool_router.migrations"), tmp_path, total_bytes=SIZE)
    await shelf.upload()
    with pytest.raises(ResourceExhausted):
        await shelf.upload(CONTENT + b"\0", owner=BOB)


async def test_a_file_with_another_digest_is_not_kept(shelf: Shelf) -> None:
    with pytest.raises(FailedPrecondition) as refusal:
        await shelf.upload(digest="0" * 64)
    assert refusal.value.reason == reasons.ERROR_REASON_DIGEST_MISMATCH
    assert shelf.kept() == []
    assert await shelf.taken(ALICE) == 0
    assert await shelf.uploads.offset(ALICE, "0" * 64) == (0, False)


async def test_a_truncated_gguf_is_not_kept(shelf: Shelf) -> None:
    cut = CONTENT[:-1]
    with pytest.raises(FailedPrecondition) as refusal:
        await shelf.upload(cut)
    assert refusal.value.reason == reasons.ERROR_REASON_INVALID_GGUF
    assert "truncated" in refusal.value.message
    assert shelf.kept() == []
    assert await shelf.taken(ALICE) == 0
    with pytest.raises(NotFound):
        await shelf.find(hashlib.sha256(cut).hexdigest())


async def test_a_file_that_is_no_gguf_is_refused_at_its_first_bytes(shelf: Shelf) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"G"
        yield b"IF89a" * 10
        raise AssertionError("it should not have read on")

    with pytest.raises(FailedPrecondition) as refusal:
        await shelf.take(ALICE, Announcement("1" * 64, 9000, "gif", 0), endless())
    assert refusal.value.reason == reasons.ERROR_REASON_INVALID_GGUF
    assert await shelf.taken(ALICE) == 0
    assert await shelf.uploads.offset(ALICE, "1" * 64) == (0, False)


async def test_more_bytes_than_announced_are_refused(shelf: Shelf) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await shelf.upload(CONTENT + b"more", digest=DIGEST, size=SIZE)
    assert refusal.value.message == (
        f"header.size_bytes: more than the announced {SIZE} bytes came; nothing was kept; give the "
        "file's size"
    )
    assert shelf.kept() == []
    await shelf.upload()


async def test_the_sweep_forgets_old_parts_and_files_that_nobody_owns(shelf: Shelf) -> None:
    await shelf.upload()
    with pytest.raises(Aborted):
        await shelf.upload(CONTENT[:300] + b"x", digest="2" * 64, size=SIZE)
    stray = shelf.files.put_stream([b"GGUF of an upload whose owner was never written"])
    shelf.clock.advance(timedelta(days=6))
    await shelf.uploads.sweep()
    assert stray not in shelf.kept()
    assert await shelf.uploads.offset(ALICE, "2" * 64) == (301, False)
    shelf.clock.advance(timedelta(days=2))
    await shelf.uploads.sweep()
    assert await shelf.uploads.offset(ALICE, "2" * 64) == (0, False)
    assert await shelf.taken(ALICE) == SIZE
    assert shelf.kept() == [DIGEST]

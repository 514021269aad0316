from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from pathlib import Path

import pytest

from evalpool.models import ModelStore, catalogue, find_model
from evalpool_router import store
from evalpool_router.catalogue import catalogue_models
from evalpool_router.repository import Announcement, Limits, Repository
from evalpool_runtime.clock import ManualClock
from evalpool_runtime.database import Database
from evalpool_runtime.errors import (
    Aborted,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    reasons,
)
from tests.conftest import OpenDatabase
from tests.evalpool.models.gguf_writer import Gguf

ALICE, BOB = "alice", "bob"
CONTENT = Gguf().to_bytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SIZE = len(CONTENT)


class Shelf:
    """A repository with what it stands on."""

    def __init__(self, database: Database, root: Path, **limits: int) -> None:
        self.database = database
        self.clock = ManualClock()
        self.files = ModelStore(root, clock=lambda: self.clock.now().timestamp())
        self.repository = Repository(
            database,
            self.files,
            Limits(
                owner_bytes=limits.get("owner_bytes", 10_000),
                total_bytes=limits.get("total_bytes", 100_000),
                keep_parts=timedelta(days=7),
            ),
            self.clock,
        )

    async def upload(
        self,
        content: bytes = CONTENT,
        *,
        owner: str = ALICE,
        digest: str | None = None,
        size: int | None = None,
        offset: int = 0,
        name: str = "tiny",
        chunk: int = 100,
    ) -> tuple[str, bool]:
        """Send a content from an offset on; gives the owner of what is kept, and whether it was."""
        announced = Announcement(
            digest or hashlib.sha256(content).hexdigest(),
            len(content) if size is None else size,
            name,
            offset,
        )
        rest = content[offset:]
        pieces = [rest[at : at + chunk] for at in range(0, len(rest), chunk)]
        model, existed = await self.repository.upload(owner, announced, stream(pieces))
        return model.owner, existed

    def kept(self) -> list[str]:
        return [entry.digest for entry in self.files.entries()]

    async def taken(self, owner: str) -> int:
        return await self.database.read(
            lambda tx: store.bytes_taken(tx, owner=owner, without=("", ""))
        )


async def stream(pieces: Iterable[bytes], *, break_off: bool = False) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if break_off:
        raise ConnectionError("the line broke")


@pytest.fixture
async def shelf(database: OpenDatabase, tmp_path: Path) -> Shelf:
    return Shelf(await database("evalpool_router.migrations"), tmp_path / "files")


def test_the_router_knows_the_catalogues_language_models_only() -> None:
    language = [entry.name for entry in catalogue() if entry.kind == "language"]
    assert [model.name for model in catalogue_models()] == language


async def test_an_upload_is_kept_with_what_its_header_says(shelf: Shelf) -> None:
    assert await shelf.upload() == (ALICE, False)
    model = await shelf.repository.find(DIGEST)
    assert (model.name, model.owner, model.size_bytes) == ("tiny", ALICE, SIZE)
    assert (model.context_length, model.quantisation, model.license) == (512, "Q8_0", "apache-2.0")
    assert model.create_time == shelf.clock.now()
    assert shelf.files.path(DIGEST).read_bytes() == CONTENT
    assert (await shelf.repository.find("tiny")).digest == DIGEST


async def test_an_upload_goes_on_where_it_broke_off(shelf: Shelf) -> None:
    announced = Announcement(DIGEST, SIZE, "tiny", 0)
    with pytest.raises(ConnectionError):
        await shelf.repository.upload(
            ALICE, announced, stream([CONTENT[:100], CONTENT[100:250]], break_off=True)
        )
    assert await shelf.repository.upload_offset(ALICE, DIGEST) == (250, False)
    # The part is its owner's alone.
    assert await shelf.repository.upload_offset(BOB, DIGEST) == (0, False)
    assert await shelf.upload(offset=250) == (ALICE, False)
    assert await shelf.repository.upload_offset(ALICE, DIGEST) == (SIZE, True)
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
    assert await shelf.repository.upload_offset(BOB, DIGEST) == (SIZE, True)


async def test_of_two_uploads_at_once_the_one_that_ends_first_owns_the_file(
    shelf: Shelf,
) -> None:
    async def interrupted() -> AsyncIterator[bytes]:
        yield CONTENT[:100]
        assert await shelf.upload(owner=BOB) == (BOB, False)
        yield CONTENT[100:]

    model, existed = await shelf.repository.upload(
        ALICE, Announcement(DIGEST, SIZE, "tiny", 0), interrupted()
    )
    assert (model.owner, existed) == (BOB, True)
    assert (await shelf.taken(ALICE), await shelf.taken(BOB)) == (0, SIZE)


async def test_one_owner_sends_a_file_once_at_a_time(shelf: Shelf) -> None:
    async def interrupted() -> AsyncIterator[bytes]:
        yield CONTENT[:100]
        with pytest.raises(Aborted):
            await shelf.upload()
        yield CONTENT[100:]

    await shelf.repository.upload(ALICE, Announcement(DIGEST, SIZE, "tiny", 0), interrupted())
    assert shelf.kept() == [DIGEST]


async def test_a_file_of_the_catalogue_needs_no_upload(shelf: Shelf) -> None:
    known = find_model("SmolLM2-135M-Instruct.Q4_1")
    announced = Announcement(known.sha256 or "", known.size_bytes or 0, "mine", 0)
    model, existed = await shelf.repository.upload(ALICE, announced, stream([]))
    assert (model.owner, existed) == ("", True)
    assert model.source.startswith("pypi:")
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
    assert await shelf.repository.upload_offset(ALICE, "0" * 64) == (0, False)


async def test_a_truncated_gguf_is_not_kept(shelf: Shelf) -> None:
    cut = CONTENT[:-1]
    with pytest.raises(FailedPrecondition) as refusal:
        await shelf.upload(cut)
    assert refusal.value.reason == reasons.ERROR_REASON_INVALID_GGUF
    assert "truncated" in refusal.value.message
    assert shelf.kept() == []
    assert await shelf.taken(ALICE) == 0
    with pytest.raises(NotFound):
        await shelf.repository.find(hashlib.sha256(cut).hexdigest())


async def test_a_file_that_is_no_gguf_is_refused_at_its_first_bytes(shelf: Shelf) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"G"
        yield b"IF89a" * 10
        raise AssertionError("it should not have read on")

    with pytest.raises(FailedPrecondition) as refusal:
        await shelf.repository.upload(ALICE, Announcement("1" * 64, 9000, "gif", 0), endless())
    assert refusal.value.reason == reasons.ERROR_REASON_INVALID_GGUF
    assert await shelf.taken(ALICE) == 0
    assert await shelf.repository.upload_offset(ALICE, "1" * 64) == (0, False)


async def test_more_bytes_than_announced_are_refused(shelf: Shelf) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await shelf.upload(CONTENT + b"more", digest=DIGEST, size=SIZE)
    assert refusal.value.violations[0].field == "header.size_bytes"
    assert shelf.kept() == []
    await shelf.upload()


async def test_the_owner_and_trusted_callers_may_run_and_download_a_model(shelf: Shelf) -> None:
    await shelf.upload()
    for caller, trusted in ((ALICE, False), (BOB, True)):
        model = await shelf.repository.find_runnable(DIGEST, caller=caller, trusted=trusted)
        assert model.digest == DIGEST
        size, chunks = await shelf.repository.download(DIGEST, 0, caller=caller, trusted=trusted)
        assert (size, b"".join([chunk async for chunk in chunks])) == (SIZE, CONTENT)
    with pytest.raises(PermissionDenied) as refusal:
        await shelf.repository.find_runnable(DIGEST, caller=BOB, trusted=False)
    assert refusal.value.reason == reasons.ERROR_REASON_SUBJECT_NOT_OWNED
    with pytest.raises(PermissionDenied):
        await shelf.repository.download(DIGEST, 0, caller=BOB, trusted=False)


async def test_a_download_begins_at_an_offset(shelf: Shelf) -> None:
    await shelf.upload()
    for offset in (1, SIZE - 1, SIZE):
        _, chunks = await shelf.repository.download(DIGEST, offset, caller=ALICE, trusted=False)
        assert b"".join([chunk async for chunk in chunks]) == CONTENT[offset:]
    for offset in (-1, SIZE + 1):
        with pytest.raises(InvalidRequest):
            await shelf.repository.download(DIGEST, offset, caller=ALICE, trusted=False)


async def test_a_catalogue_model_without_a_digest_cannot_be_run(shelf: Shelf) -> None:
    nameless = next(model for model in catalogue_models() if not model.digest)
    with pytest.raises(FailedPrecondition) as refusal:
        await shelf.repository.find_runnable(nameless.name, caller=ALICE, trusted=True)
    assert nameless.name in refusal.value.message


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_models_are_listed_page_by_page_uploads_after_the_catalogue(
    shelf: Shelf, limit: int
) -> None:
    for name, version in (("b", 2), ("a", 3), ("catalogue", 3)):
        content = Gguf(version=version).add(f"note.{name}", Gguf().metadata[1][1]).to_bytes()
        await shelf.upload(content, name=name)
    names, cursor = [], None
    while True:
        page, cursor = await shelf.repository.list(cursor, limit)
        assert 1 <= len(page) <= limit
        names += [model.name for model in page]
        if cursor is None:
            break
    assert names == [*(model.name for model in catalogue_models()), "a", "b", "catalogue"]


async def test_a_page_that_ends_with_the_catalogue_has_no_empty_successor(shelf: Shelf) -> None:
    page, cursor = await shelf.repository.list(None, len(catalogue_models()))
    assert len(page) == len(catalogue_models())
    assert cursor is None


async def test_the_sweep_forgets_old_parts_and_files_that_nobody_owns(shelf: Shelf) -> None:
    await shelf.upload()
    with pytest.raises(Aborted):
        await shelf.upload(CONTENT[:300] + b"x", digest="2" * 64, size=SIZE)
    stray = shelf.files.put_stream([b"GGUF of an upload whose owner was never written"])
    shelf.clock.advance(timedelta(days=6))
    await shelf.repository.sweep()
    assert stray not in shelf.kept()
    assert await shelf.repository.upload_offset(ALICE, "2" * 64) == (301, False)
    shelf.clock.advance(timedelta(days=2))
    await shelf.repository.sweep()
    assert await shelf.repository.upload_offset(ALICE, "2" * 64) == (0, False)
    assert await shelf.taken(ALICE) == SIZE
    assert shelf.kept() == [DIGEST]

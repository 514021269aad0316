from __future__ import annotations

from datetime import timedelta

import pytest

from evalpool.models import catalogue
from evalpool_router.catalogue import catalogue_models
from evalpool_runtime.errors import (
    FailedPrecondition,
    InvalidRequest,
    PermissionDenied,
    reasons,
)
from tests.evalpool.models.gguf_writer import Gguf
from tests.router.shelf import ALICE, BOB, CONTENT, DIGEST, SIZE, Shelf


def test_the_router_knows_the_catalogues_language_models_only() -> None:
    language = [entry.name for entry in catalogue() if entry.kind == "language"]
    assert [model.name for model in catalogue_models()] == language


async def test_the_owner_and_trusted_callers_may_run_and_download_a_model(shelf: Shelf) -> None:
    await shelf.upload()
    for caller, trusted in ((ALICE, False), (BOB, True)):
        model = await shelf.runnable(DIGEST, caller=caller, trusted=trusted)
        assert model.digest == DIGEST
        size, chunks = await shelf.repository.download(DIGEST, 0, caller=caller, trusted=trusted)
        assert (size, b"".join([chunk async for chunk in chunks])) == (SIZE, CONTENT)
    with pytest.raises(PermissionDenied) as refusal:
        await shelf.runnable(DIGEST, caller=BOB, trusted=False)
    assert refusal.value.reason == reasons.ERROR_REASON_SUBJECT_NOT_OWNED
    with pytest.raises(PermissionDenied):
        await shelf.repository.download(DIGEST, 0, caller=BOB, trusted=False)


async def test_a_download_begins_at_an_offset(shelf: Shelf) -> None:
    await shelf.upload()
    for offset in (1, SIZE - 1, SIZE):
        _, chunks = await shelf.repository.download(DIGEST, offset, caller=ALICE, trusted=False)
        assert b"".join([chunk async for chunk in chunks]) == CONTENT[offset:]
    for offset in (-1, SIZE + 1):
        with pytest.raises(InvalidRequest) as refusal:
            await shelf.repository.download(DIGEST, offset, caller=ALICE, trusted=False)
        assert [violation.field for violation in refusal.value.violations] == ["offset"]


async def test_of_models_with_one_name_the_callers_own_is_found(shelf: Shelf) -> None:
    bobs = Gguf(version=2).to_bytes()
    await shelf.upload(name="mine", owner=ALICE)
    shelf.clock.advance(timedelta(seconds=1))
    await shelf.upload(bobs, name="mine", owner=BOB)
    for caller, owner in ((ALICE, ALICE), (BOB, BOB), ("somebody else", ALICE)):
        assert (await shelf.find("mine", caller=caller)).owner == owner
    catalogued = catalogue_models()[0]
    await shelf.upload(Gguf(version=2).add("note", Gguf().metadata[1][1]).to_bytes(), name="x")
    assert (await shelf.find(catalogued.name.upper())).digest == catalogued.digest


async def test_a_catalogue_model_without_a_digest_cannot_be_run(shelf: Shelf) -> None:
    nameless = next(model for model in catalogue_models() if not model.digest)
    with pytest.raises(FailedPrecondition) as refusal:
        await shelf.runnable(nameless.name, caller=ALICE, trusted=True)
    assert refusal.value.message.startswith("model.digest: ")
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

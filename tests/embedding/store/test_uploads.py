"""Sets that come in pieces, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from evalpool_embedding.store import contents, documents, uploads
from evalpool_runtime.database import Database
from evalpool_runtime.errors import AlreadyExists
from tests.embedding.store.stored import (
    MODEL,
    NOW,
    OTHER,
    THREE,
    create,
    finish,
    next_to_embed,
    upload,
    upload_more,
)


async def test_an_upload_is_a_set_only_at_its_end(opened: Database) -> None:
    content_id = await upload(opened, THREE)
    assert await opened.read(contents.every) == []
    assert await next_to_embed(opened) is None

    named, existed = await finish(opened, content_id, "owner", THREE)

    assert not existed
    assert named.content.document_count == 3
    kept = await opened.read(lambda c: documents.listed_from(c, named.content.id, 0, 9))
    assert kept == THREE


async def test_an_upload_of_what_is_there_leaves_one_content(opened: Database) -> None:
    made = (await create(opened, "owner", "set", THREE))[0]

    mine = await finish(opened, await upload(opened, THREE), "owner", THREE)
    theirs, existed = await finish(opened, await upload(opened, THREE), "stranger", THREE)

    assert mine == (made, True)
    assert not existed
    assert theirs.content == made.content
    assert await opened.read(contents.every) == [made.content]


async def test_an_upload_under_a_taken_name_is_refused(opened: Database) -> None:
    await create(opened, "owner", "set", OTHER)
    content_id = await upload(opened, THREE)

    with pytest.raises(AlreadyExists):
        await finish(opened, content_id, "owner", THREE)


async def test_uploads_to_which_nothing_came_are_swept(opened: Database) -> None:
    made = (await create(opened, "owner", "kept", OTHER))[0]
    stale = await upload(opened, THREE)
    later = NOW + timedelta(hours=1)
    fresh = await opened.write(lambda c: uploads.begin(c, MODEL, later))

    swept = await opened.write(lambda c: uploads.discard_stale(c, later))

    assert swept == 1
    with pytest.raises(LookupError):
        await upload_more(opened, stale)
    with pytest.raises(LookupError):
        await finish(opened, stale, "owner", THREE)
    assert await upload_more(opened, fresh) == 1
    assert await opened.read(contents.every) == [made.content]

"""Contents and their embedding, on both databases."""

from __future__ import annotations

from datetime import timedelta

from evalpool_embedding.sets import MAX_FAILURES, SetState
from evalpool_embedding.store import contents, sets
from evalpool_runtime.database import Database
from tests.embedding.store.stored import (
    MODEL,
    NOW,
    OTHER,
    THREE,
    advance,
    create,
    next_to_embed,
    upload,
)


async def test_a_content_becomes_ready_with_its_last_document(opened: Database) -> None:
    content = (await create(opened, "owner", "set", THREE))[0].content

    some = await advance(opened, content, 2)
    assert some is not None
    assert (some.state, some.embedded_count) == (SetState.EMBEDDING, 2)
    assert await advance(opened, content, 3) is None, "somebody else went on meanwhile"
    last = await advance(opened, some, 3)

    assert last is not None
    assert last.state is SetState.READY
    assert await next_to_embed(opened) is None


async def test_sets_take_turns(opened: Database) -> None:
    first = (await create(opened, "owner", "first", THREE, at=1))[0].content
    second = (await create(opened, "owner", "second", OTHER, at=2))[0].content

    assert await next_to_embed(opened) == first
    await opened.write(lambda c: contents.advance(c, first, 1, NOW + timedelta(seconds=3)))

    assert await next_to_embed(opened) == second


async def test_failures_in_a_row_end_it_and_making_it_again_begins_anew(
    opened: Database,
) -> None:
    content = (await create(opened, "owner", "set", THREE))[0].content
    for _ in range(MAX_FAILURES - 1):
        await opened.write(lambda c: contents.note_failure(c, content.id, "no memory", NOW))
    waiting = await next_to_embed(opened)
    assert waiting is not None
    assert waiting.failures == MAX_FAILURES - 1

    await opened.write(lambda c: contents.note_failure(c, content.id, "no memory", NOW))
    failed = await opened.read(lambda c: sets.find(c, "owner", "set"))
    assert failed.content.state is SetState.FAILED
    assert failed.content.failure == "no memory"
    assert await next_to_embed(opened) is None

    again, existed = await create(opened, "owner", "set", THREE)
    assert existed
    assert (again.content.state, again.content.failures) == (SetState.EMBEDDING, 0)


async def test_another_owners_new_name_revives_a_failed_content(opened: Database) -> None:
    content = (await create(opened, "owner", "set", THREE))[0].content
    for _ in range(MAX_FAILURES):
        await opened.write(lambda c: contents.note_failure(c, content.id, "no memory", NOW))

    named, existed = await create(opened, "stranger", "mine", THREE)

    assert not existed
    assert named.content.state is SetState.EMBEDDING


async def test_a_content_that_comes_back_has_another_collection(opened: Database) -> None:
    content = (await create(opened, "owner", "set", THREE))[0].content
    await opened.write(lambda c: sets.delete_own(c, "owner", "set"))

    again = (await create(opened, "owner", "set", THREE))[0].content

    assert again.digest == content.digest
    assert again.collection != content.collection


async def test_a_model_adopts_the_contents_of_others_and_leaves_its_own_alone(
    opened: Database,
) -> None:
    ready = (await create(opened, "owner", "ready", THREE))[0].content
    await advance(opened, ready, 3)
    coming = await upload(opened, OTHER)

    assert await opened.write(lambda c: contents.adopt(c, MODEL, NOW)) == 0
    kept = await opened.read(lambda c: contents.get(c, ready.id))
    assert kept is not None
    assert kept.state is SetState.READY
    assert await opened.write(lambda c: contents.adopt(c, "b" * 64, NOW)) == 1

    adopted = await opened.read(lambda c: contents.get(c, ready.id))
    assert adopted is not None
    assert (adopted.state, adopted.embedded_count) == (SetState.EMBEDDING, 0)
    uploading = await opened.read(lambda c: contents.get(c, coming))
    assert uploading is not None
    assert {adopted.model_digest, uploading.model_digest} == {"b" * 64}
    assert uploading.state is SetState.UPLOADING


async def test_another_model_embeds_from_the_beginning(opened: Database) -> None:
    content = (await create(opened, "owner", "set", THREE))[0].content
    await advance(opened, content, 3)

    await opened.write(lambda c: contents.embed_again(c, content.id, "b" * 64, NOW))

    assert await next_to_embed(opened) is None, "it is the other model's turn"
    again = await opened.read(lambda c: contents.next_to_embed(c, "b" * 64))
    assert again is not None
    assert (again.embedded_count, again.model_digest) == (0, "b" * 64)
    assert again.collection != content.collection
    assert await advance(opened, content, 3) is None, "that was the other model's"

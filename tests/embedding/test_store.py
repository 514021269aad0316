"""What is stored of document sets, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from evalpool_embedding import store
from evalpool_embedding.documents import Document, content_digest
from evalpool_embedding.sets import MAX_FAILURES, Content, DocumentSet, SetState
from evalpool_runtime.database import Database
from evalpool_runtime.errors import AlreadyExists, FailedPrecondition, NotFound

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = "a" * 64
THREE = [Document("one", {"n": 1.0}), Document("two", {"is": True}), Document("three", {"s": "é"})]
OTHER = [Document("other", {})]

OpenDatabase = Callable[[str], Awaitable[Database]]


@pytest.fixture
async def opened(database: OpenDatabase) -> Database:
    return await database("evalpool_embedding.migrations")


async def create(
    database: Database, owner: str, alias: str, listed: list[Document], *, at: int = 0
) -> tuple[DocumentSet, bool]:
    return await database.write(
        partial(
            store.create_set,
            owner=owner,
            alias=alias,
            digest=content_digest(listed),
            listed=listed,
            model_digest=MODEL,
            now=NOW + timedelta(seconds=at),
        )
    )


async def advance(database: Database, content: Content, count: int) -> Content | None:
    return await database.write(
        partial(store.advance, content=content, embedded_count=count, now=NOW)
    )


async def test_documents_are_kept_in_their_order_with_their_meta(opened: Database) -> None:
    made, existed = await create(opened, "owner", "set", THREE)

    assert not existed
    assert made.content.state is SetState.EMBEDDING
    assert made.content.document_count == 3
    kept = await opened.read(lambda c: store.documents_from(c, made.content.id, 1, 10))
    assert kept == THREE[1:]
    at = await opened.read(lambda c: store.documents_at(c, made.content.id, [2, 0, 9]))
    assert at == {0: THREE[0], 2: THREE[2]}


async def test_the_same_set_at_once_from_many_is_kept_once(opened: Database) -> None:
    made = await asyncio.gather(
        *(create(opened, f"owner-{n % 3}", "set", THREE) for n in range(12))
    )

    assert len({named.content.id for named, _ in made}) == 1
    assert sum(not existed for _, existed in made) == 3
    assert len(await opened.read(store.all_contents)) == 1


async def test_a_name_has_one_content(opened: Database) -> None:
    await create(opened, "owner", "set", THREE)

    with pytest.raises(AlreadyExists, match="other content"):
        await create(opened, "owner", "set", OTHER)
    named, existed = await create(opened, "stranger", "set", OTHER)

    assert not existed
    assert named.content.document_count == 1
    assert len(await opened.read(store.all_contents)) == 2


async def test_a_content_becomes_ready_with_its_last_document(opened: Database) -> None:
    content = (await create(opened, "owner", "set", THREE))[0].content

    some = await advance(opened, content, 2)
    assert some is not None
    assert (some.state, some.embedded_count) == (SetState.EMBEDDING, 2)
    assert await advance(opened, content, 3) is None, "somebody else went on meanwhile"
    last = await advance(opened, some, 3)

    assert last is not None
    assert last.state is SetState.READY
    assert await opened.read(store.next_to_embed) is None


async def test_sets_take_turns(opened: Database) -> None:
    first = (await create(opened, "owner", "first", THREE, at=1))[0].content
    second = (await create(opened, "owner", "second", OTHER, at=2))[0].content

    assert await opened.read(store.next_to_embed) == first
    await opened.write(lambda c: store.advance(c, first, 1, NOW + timedelta(seconds=3)))

    assert await opened.read(store.next_to_embed) == second


async def test_failures_in_a_row_end_it_and_making_it_again_begins_anew(
    opened: Database,
) -> None:
    content = (await create(opened, "owner", "set", THREE))[0].content
    for _ in range(MAX_FAILURES - 1):
        await opened.write(lambda c: store.note_failure(c, content.id, "no memory", NOW))
    waiting = await opened.read(store.next_to_embed)
    assert waiting is not None
    assert waiting.failures == MAX_FAILURES - 1

    await opened.write(lambda c: store.note_failure(c, content.id, "no memory", NOW))
    failed = await opened.read(lambda c: store.find_set(c, "owner", "set"))
    assert failed.content.state is SetState.FAILED
    assert failed.content.failure == "no memory"
    assert await opened.read(store.next_to_embed) is None

    again, existed = await create(opened, "owner", "set", THREE)
    assert existed
    assert (again.content.state, again.content.failures) == (SetState.EMBEDDING, 0)


async def test_another_owners_new_name_revives_a_failed_content(opened: Database) -> None:
    content = (await create(opened, "owner", "set", THREE))[0].content
    for _ in range(MAX_FAILURES):
        await opened.write(lambda c: store.note_failure(c, content.id, "no memory", NOW))

    named, existed = await create(opened, "stranger", "mine", THREE)

    assert not existed
    assert named.content.state is SetState.EMBEDDING


async def test_sets_are_found_by_own_name_and_by_digest_of_own(opened: Database) -> None:
    mine = (await create(opened, "owner", "set", THREE))[0]
    digest = mine.content.digest

    assert await opened.read(lambda c: store.find_set(c, "owner", digest)) == mine
    for name in ("set", digest):
        with pytest.raises(NotFound, match=name):
            await opened.read(partial(store.find_set, caller="stranger", name=name))
    seen = await opened.read(
        lambda c: store.find_set(c, "dataset-service", digest, of_anybody=True)
    )
    assert seen == mine


async def test_a_digest_belongs_to_who_named_it_first(opened: Database) -> None:
    await create(opened, "second", "a", THREE, at=2)
    await create(opened, "first", "z", THREE, at=1)

    digest = content_digest(THREE)
    seen = await opened.read(lambda c: store.find_set(c, "x", digest, of_anybody=True))

    assert seen.owner == "first"


async def test_lists_go_on_after_a_name(opened: Database) -> None:
    for alias in ("b", "c", "a"):
        await create(opened, "owner", alias, THREE)
    await create(opened, "stranger", "d", THREE)

    first = await opened.read(lambda c: store.list_sets(c, "owner", None, 2))
    rest = await opened.read(lambda c: store.list_sets(c, "owner", "b", 2))

    assert [named.alias for named in first] == ["a", "b"]
    assert [named.alias for named in rest] == ["c"]


async def test_a_content_goes_with_its_last_name(opened: Database) -> None:
    content = (await create(opened, "owner", "set", THREE))[0].content
    await create(opened, "stranger", "set", THREE)

    assert await opened.write(lambda c: store.delete_set(c, "owner", "set")) is None
    assert await opened.write(lambda c: store.delete_set(c, "stranger", "set")) == content

    assert await opened.read(store.all_contents) == []
    assert await opened.read(lambda c: store.documents_from(c, content.id, 0, 9)) == []
    assert not await opened.read(lambda c: store.has_content(c, content.id))
    assert await advance(opened, content, 3) is None
    with pytest.raises(NotFound):
        await opened.write(lambda c: store.delete_set(c, "owner", "set"))


async def test_a_content_that_comes_back_has_another_collection(opened: Database) -> None:
    content = (await create(opened, "owner", "set", THREE))[0].content
    await opened.write(lambda c: store.delete_set(c, "owner", "set"))

    again = (await create(opened, "owner", "set", THREE))[0].content

    assert again.digest == content.digest
    assert again.collection != content.collection


async def test_an_entered_content_keeps_its_last_name(opened: Database) -> None:
    content = (await create(opened, "owner", "set", THREE))[0].content
    await create(opened, "owner", "same", THREE)
    await opened.write(lambda c: store.mark_entered(c, content.id, NOW))

    await opened.write(lambda c: store.delete_set(c, "owner", "same"))
    with pytest.raises(FailedPrecondition, match="entered in a pool"):
        await opened.write(lambda c: store.delete_set(c, "owner", "set"))

    kept = await opened.read(lambda c: store.find_set(c, "owner", "set"))
    assert kept.content.is_entered


async def upload(database: Database, listed: list[Document]) -> int:
    content_id = await database.write(lambda c: store.begin_upload(c, MODEL, NOW))
    for document in listed:
        await database.write(partial(_extend, content_id=content_id, document=document))
    return content_id


def _extend(connection: object, content_id: int, document: Document) -> int:
    return store.extend_upload(connection, content_id, [document], NOW)  # type: ignore[arg-type]


async def finish(
    database: Database, content_id: int, owner: str, listed: list[Document]
) -> tuple[DocumentSet, bool]:
    return await database.write(
        partial(
            store.finish_upload,
            content_id=content_id,
            owner=owner,
            alias="set",
            digest=content_digest(listed),
            now=NOW,
        )
    )


async def test_an_upload_is_a_set_only_at_its_end(opened: Database) -> None:
    content_id = await upload(opened, THREE)
    assert await opened.read(store.all_contents) == []
    assert await opened.read(store.next_to_embed) is None

    named, existed = await finish(opened, content_id, "owner", THREE)

    assert not existed
    assert named.content.document_count == 3
    kept = await opened.read(lambda c: store.documents_from(c, named.content.id, 0, 9))
    assert kept == THREE


async def test_an_upload_of_what_is_there_leaves_one_content(opened: Database) -> None:
    made = (await create(opened, "owner", "set", THREE))[0]

    mine = await finish(opened, await upload(opened, THREE), "owner", THREE)
    theirs, existed = await finish(opened, await upload(opened, THREE), "stranger", THREE)

    assert mine == (made, True)
    assert not existed
    assert theirs.content == made.content
    assert await opened.read(store.all_contents) == [made.content]


async def test_an_upload_under_a_taken_name_is_refused(opened: Database) -> None:
    await create(opened, "owner", "set", OTHER)
    content_id = await upload(opened, THREE)

    with pytest.raises(AlreadyExists):
        await finish(opened, content_id, "owner", THREE)


async def test_uploads_to_which_nothing_came_are_swept(opened: Database) -> None:
    made = (await create(opened, "owner", "kept", OTHER))[0]
    stale = await upload(opened, THREE)
    later = NOW + timedelta(hours=1)
    fresh = await opened.write(lambda c: store.begin_upload(c, MODEL, later))

    swept = await opened.write(lambda c: store.discard_stale_uploads(c, later))

    assert swept == 1
    with pytest.raises(LookupError):
        await upload_more(opened, stale)
    with pytest.raises(LookupError):
        await finish(opened, stale, "owner", THREE)
    assert await upload_more(opened, fresh) == 1
    assert await opened.read(store.all_contents) == [made.content]


async def upload_more(database: Database, content_id: int) -> int:
    return await database.write(
        partial(_extend, content_id=content_id, document=Document("more", {}))
    )


async def test_another_model_embeds_from_the_beginning(opened: Database) -> None:
    content = (await create(opened, "owner", "set", THREE))[0].content
    await advance(opened, content, 3)

    await opened.write(lambda c: store.embed_again(c, content.id, "b" * 64, NOW))

    again = await opened.read(store.next_to_embed)
    assert again is not None
    assert (again.embedded_count, again.model_digest) == (0, "b" * 64)
    assert again.collection != content.collection
    assert await advance(opened, content, 3) is None, "that was the other model's"

"""Owners' names for contents, on both databases."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from evalpool_embedding.documents import content_digest
from evalpool_embedding.store import contents, documents, sets
from evalpool_runtime.database import Database
from evalpool_runtime.errors import AlreadyExists, FailedPrecondition, NotFound
from tests.embedding.store.stored import NOW, OTHER, THREE, advance, create


async def test_the_same_set_at_once_from_many_is_kept_once(opened: Database) -> None:
    made = await asyncio.gather(
        *(create(opened, f"owner-{n % 3}", "set", THREE) for n in range(12))
    )

    assert len({named.content.id for named, _ in made}) == 1
    assert sum(not existed for _, existed in made) == 3
    assert len(await opened.read(contents.every)) == 1


async def test_a_name_has_one_content(opened: Database) -> None:
    await create(opened, "owner", "set", THREE)

    with pytest.raises(AlreadyExists, match=r"^hash: .+ other content; "):
        await create(opened, "owner", "set", OTHER)
    named, existed = await create(opened, "stranger", "set", OTHER)

    assert not existed
    assert named.content.document_count == 1
    assert len(await opened.read(contents.every)) == 2


async def test_sets_are_found_by_own_name_and_by_digest_of_own(opened: Database) -> None:
    mine = (await create(opened, "owner", "set", THREE))[0]
    digest = mine.content.digest

    assert await opened.read(lambda c: sets.find(c, "owner", digest)) == mine
    for name in ("set", digest):
        with pytest.raises(NotFound, match=f"^dataset_hash: .+ {name}; ListDatasets"):
            await opened.read(partial(sets.find, caller="stranger", name=name))
    seen = await opened.read(lambda c: sets.find(c, "dataset-service", digest, of_anybody=True))
    assert seen == mine


async def test_a_digest_belongs_to_who_named_it_first(opened: Database) -> None:
    await create(opened, "second", "a", THREE, at=2)
    await create(opened, "first", "z", THREE, at=1)

    digest = content_digest(THREE)
    seen = await opened.read(lambda c: sets.find(c, "x", digest, of_anybody=True))

    assert seen.owner == "first"


async def test_lists_go_on_after_a_name(opened: Database) -> None:
    for alias in ("b", "c", "a"):
        await create(opened, "owner", alias, THREE)
    await create(opened, "stranger", "d", THREE)

    first = await opened.read(lambda c: sets.page(c, "owner", None, 2))
    rest = await opened.read(lambda c: sets.page(c, "owner", "b", 2))

    assert [named.alias for named in first] == ["a", "b"]
    assert [named.alias for named in rest] == ["c"]


async def test_a_content_goes_with_its_last_name(opened: Database) -> None:
    content = (await create(opened, "owner", "set", THREE))[0].content
    await create(opened, "stranger", "set", THREE)

    assert await opened.write(lambda c: sets.delete_own(c, "owner", "set")) is None
    assert await opened.write(lambda c: sets.delete_own(c, "stranger", "set")) == content

    assert await opened.read(contents.every) == []
    assert await opened.read(lambda c: documents.listed_from(c, content.id, 0, 9)) == []
    assert not await opened.read(lambda c: contents.get(c, content.id))
    assert await advance(opened, content, 3) is None
    with pytest.raises(NotFound):
        await opened.write(lambda c: sets.delete_own(c, "owner", "set"))


async def test_an_entered_content_keeps_its_last_name(opened: Database) -> None:
    content = (await create(opened, "owner", "set", THREE, at=1))[0].content
    await create(opened, "owner", "same", THREE, at=2)
    await opened.write(lambda c: contents.mark_entered(c, content.id, NOW))

    await opened.write(lambda c: sets.delete_own(c, "owner", "same"))
    with pytest.raises(FailedPrecondition, match=r"^hash: .+ entered in a pool"):
        await opened.write(lambda c: sets.delete_own(c, "owner", "set"))

    kept = await opened.read(lambda c: sets.find(c, "owner", "set"))
    assert kept.content.is_entered


async def test_an_entered_content_keeps_the_name_that_it_was_entered_under(
    opened: Database,
) -> None:
    content = (await create(opened, "owner", "set", THREE, at=1))[0].content
    await create(opened, "stranger", "same", THREE, at=2)

    seen = await opened.write(lambda c: sets.enter(c, "dataset-service", content.digest, NOW))

    assert (seen.owner, seen.alias, seen.content.is_entered) == ("owner", "set", True)
    with pytest.raises(FailedPrecondition, match="entered in a pool"):
        await opened.write(lambda c: sets.delete_own(c, "owner", "set"))
    assert await opened.write(lambda c: sets.delete_own(c, "stranger", "same")) is None


async def test_what_is_not_there_cannot_be_entered(opened: Database) -> None:
    with pytest.raises(NotFound):
        await opened.write(lambda c: sets.enter(c, "dataset-service", "a" * 64, NOW))

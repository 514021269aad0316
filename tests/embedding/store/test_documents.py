"""Documents, on both databases."""

from __future__ import annotations

from evalpool_embedding.sets import SetState
from evalpool_embedding.store import documents
from evalpool_runtime.database import Database
from tests.embedding.store.stored import THREE, create


async def test_documents_are_kept_in_their_order_with_their_meta(opened: Database) -> None:
    made, existed = await create(opened, "owner", "set", THREE)

    assert not existed
    assert made.content.state is SetState.EMBEDDING
    assert made.content.document_count == 3
    kept = await opened.read(lambda c: documents.listed_from(c, made.content.id, 1, 10))
    assert kept == THREE[1:]
    at = await opened.read(lambda c: documents.at_places(c, made.content.id, [2, 0, 9]))
    assert at == {0: THREE[0], 2: THREE[2]}

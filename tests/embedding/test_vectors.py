"""Collections in Chroma: what holds of it in this process holds of it on a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evalpool_embedding.chroma import Chroma, ChromaServer, EmbeddedChroma
from evalpool_embedding.documents import Meta
from evalpool_embedding.vectors import VectorIndex
from tests.embedding.chroma_process import ChromaProcess

Open = Callable[[], VectorIndex]


@pytest.fixture(params=["embedded", "server"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the index on the same vectors, as often as a test likes; one after another."""
    with ExitStack() as stack:

        def open_index() -> VectorIndex:
            chroma: Chroma
            if request.param == "embedded":
                chroma = EmbeddedChroma(tmp_path / "chroma")
            else:
                server: ChromaProcess = request.getfixturevalue("chroma_server")
                chroma = ChromaServer(server.endpoint, str(tmp_path))
            index = VectorIndex(chroma)
            stack.callback(index.close)
            return index

        yield open_index


@pytest.fixture
def index(opened: Open) -> VectorIndex:
    return opened()


def unit_vectors(count: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def test_similarities_are_the_exact_cosines_in_order(index: VectorIndex) -> None:
    vectors, wanted = unit_vectors(300, seed=1), unit_vectors(1, seed=2)[0]
    index.put("set", 0, vectors, [{}] * 300)

    found = index.nearest("set", wanted, 10, {})

    cosines = vectors @ wanted
    assert [each.index for each in found] == np.argsort(-cosines)[:10].tolist()
    assert [each.similarity for each in found] == pytest.approx(
        np.sort(cosines)[::-1][:10].tolist(), abs=1e-6
    )


def test_equal_documents_come_in_their_order(index: VectorIndex) -> None:
    index.put("set", 0, np.repeat(unit_vectors(1, seed=1), 5, axis=0), [{}] * 5)

    found = index.nearest("set", unit_vectors(1, seed=2)[0], 5, {})

    assert [each.index for each in found] == [0, 1, 2, 3, 4]


def test_writing_the_same_again_is_no_change(index: VectorIndex) -> None:
    vectors = unit_vectors(20, seed=1)
    index.put("set", 0, vectors[:15], [{}] * 15)
    index.put("set", 10, vectors[10:], [{"again": True}] * 10)

    assert index.count("set") == 20
    assert len(index.nearest("set", vectors[0], 100, {})) == 20
    assert len(index.nearest("set", vectors[0], 100, {"again": True})) == 10


def test_more_vectors_than_chroma_takes_at_once_are_written(index: VectorIndex) -> None:
    vectors = unit_vectors(12_000, seed=1)

    index.put("set", 5, vectors, [{"place": float(n)} for n in range(12_000)])

    assert index.count("set") == 12_000
    (last,) = index.nearest("set", vectors[-1], 1, {"place": 11_999.0})
    assert last.index == 12_004


def test_a_filter_is_of_numbers_booleans_and_texts_all_of_which_must_hold(
    index: VectorIndex,
) -> None:
    vectors = unit_vectors(6, seed=1)
    metas: list[Meta] = [
        {"legs": 4.0, "tame": True, "kind": "cat"},
        {"legs": 4.0, "tame": False, "kind": "tiger"},
        {"legs": 2.5, "tame": True, "kind": "cat"},
        {"legs": "4", "tame": "true"},
        {"$and": "x", "chroma:document": "y"},
        {},
    ]
    index.put("set", 0, vectors, metas)

    def found(**where: float | str | bool) -> set[int]:
        return {each.index for each in index.nearest("set", vectors[0], 10, where)}

    assert found() == set(range(6))
    assert found(legs=4.0) == {0, 1}
    assert found(legs=4.0, tame=True) == {0}
    assert found(kind="cat", tame=True) == {0, 2}
    assert found(kind="cat", tame=True, legs=2.5) == {2}
    assert found(legs="4", tame="true") == {3}
    assert found(**{"$and": "x", "chroma:document": "y"}) == {4}
    assert found(nothing="x") == set()


def test_a_rare_value_is_found_among_many(index: VectorIndex) -> None:
    vectors = unit_vectors(3_000, seed=1)
    index.put("set", 0, vectors, [{"rare": n in (7, 2_900)} for n in range(3_000)])

    found = index.nearest("set", -vectors[7], 10, {"rare": True})

    assert {each.index for each in found} == {7, 2_900}


def test_all_collections_are_listed_however_many(index: VectorIndex) -> None:
    for number in range(201):
        index.put(f"set-{number}", 0, unit_vectors(1, seed=number), [{}])

    assert index.names() == {f"set-{number}" for number in range(201)}


def test_vectors_are_there_after_opening_again_and_gone_after_dropping(opened: Open) -> None:
    vectors = unit_vectors(3, seed=1)
    first = opened()
    first.put("set", 0, vectors, [{}] * 3)
    first.close()

    again = opened()

    assert again.names() == {"set"}
    assert again.nearest("set", vectors[1], 1, {})[0].index == 1
    again.drop("set")
    again.drop("set")
    assert again.names() == set()
    assert again.count("set") == 0
    with pytest.raises(LookupError):
        again.nearest("set", vectors[1], 1, {})

"""Collections in embedded Chroma."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evalpool_embedding.vectors import VectorIndex


@pytest.fixture
def index(tmp_path: Path) -> Iterator[VectorIndex]:
    opened = VectorIndex.embedded(tmp_path / "chroma")
    yield opened
    opened.close()


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


def test_a_rare_value_is_found_among_many(index: VectorIndex) -> None:
    vectors = unit_vectors(3_000, seed=1)
    index.put("set", 0, vectors, [{"rare": n in (7, 2_900)} for n in range(3_000)])

    found = index.nearest("set", -vectors[7], 10, {"rare": True})

    assert {each.index for each in found} == {7, 2_900}


def test_vectors_are_there_after_opening_again_and_gone_after_dropping(tmp_path: Path) -> None:
    vectors = unit_vectors(3, seed=1)
    first = VectorIndex.embedded(tmp_path)
    first.put("set", 0, vectors, [{}] * 3)
    first.close()

    again = VectorIndex.embedded(tmp_path)
    try:
        assert again.names() == {"set"}
        assert again.nearest("set", vectors[1], 1, {})[0].index == 1
        again.drop("set")
        again.drop("set")
        assert again.names() == set()
        assert again.count("set") == 0
        with pytest.raises(LookupError):
            again.nearest("set", vectors[1], 1, {})
    finally:
        again.close()

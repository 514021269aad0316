"""The real model: pooling, batches, and the seed's own example."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_embedding.model import EmbeddingModel, InvalidModel, ModelFiles, plan_batches, pool

SEED_DOCUMENTS = (
    "This contains variable declarations",
    "This contains another sort of variable declarations",
    "This has nothing to do with variable declarations",
    "A random doc",
)
SEED_PROMPT = "variable declarations"

# What the model gives in 32-bit floats.
SEED_COSINES = (0.845, 0.859, 0.889, 0.133)


def test_the_seeds_example_has_the_models_cosines(model: EmbeddingModel) -> None:
    documents, prompt = model.encode(SEED_DOCUMENTS), model.encode([SEED_PROMPT])[0]

    assert (documents @ prompt).tolist() == pytest.approx(SEED_COSINES, abs=0.01)


def test_vectors_have_length_one_and_the_models_dimensions(model: EmbeddingModel) -> None:
    vectors = model.encode(["a", "", "word " * 500, "日本語 🙂"])

    assert vectors.shape == (4, model.dimensions) == (4, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)


def test_no_text_gives_no_vector(model: EmbeddingModel) -> None:
    assert model.encode([]).shape == (0, 384)


def test_company_in_a_batch_does_not_change_a_vector(model: EmbeddingModel) -> None:
    texts = [*SEED_DOCUMENTS, "word " * 200, "x"]

    together = model.encode(texts)

    alone = np.vstack([model.encode([text]) for text in texts])
    assert together == pytest.approx(alone, abs=1e-5)


def test_words_beyond_the_context_are_not_looked_at(model: EmbeddingModel) -> None:
    # 256 tokens with the two special ones.
    within, beyond = "a " * 254, "a " * 254 + "declarations"

    assert model.encode([within]) == pytest.approx(model.encode([beyond]), abs=1e-6)
    assert model.encode(["a " * 253 + "declarations"]) != pytest.approx(
        model.encode([within]), abs=1e-3
    )


def test_the_mean_leaves_out_padding() -> None:
    states = np.array([[[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]]], np.float32)

    pooled = pool(states, np.array([[1, 1, 0]]))

    assert pooled.tolist() == [pytest.approx([0.6, 0.8])]


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 10), st.integers(1, 1000))
def test_batches_have_every_text_once_within_their_bounds(
    lengths: list[int], max_texts: int, max_tokens: int
) -> None:
    batches = list(plan_batches(lengths, max_texts=max_texts, max_tokens=max_tokens))

    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[place] for place in batch)
        assert len(batch) <= max_texts
        assert len(batch) == 1 or len(batch) * longest <= max_tokens
    shortest_first = [lengths[place] for batch in batches for place in batch]
    assert shortest_first == sorted(lengths)


def test_a_file_that_is_no_model_is_refused(model_files: ModelFiles, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"no model")

    with pytest.raises(InvalidModel, match="no ONNX model"):
        EmbeddingModel(replace(model_files, onnx=junk))
    with pytest.raises(InvalidModel, match="no tokenizer"):
        EmbeddingModel(replace(model_files, tokenizer=junk))

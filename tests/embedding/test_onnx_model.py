"""Models in the form of ONNX, on the real one: pooling, batches, and the seed's own example."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evalpool_embedding.model import InvalidModel, Pooling, scaled
from evalpool_embedding.onnx_model import OnnxFiles, OnnxModel, pool
from tests.embedding.calls import SEED_COSINES, SEED_DOCUMENTS, SEED_PROMPT


def test_the_seeds_example_has_the_models_cosines(model: OnnxModel) -> None:
    documents = model.encode(list(SEED_DOCUMENTS.values()))

    cosines = documents @ model.encode([SEED_PROMPT])[0]

    assert cosines.tolist() == pytest.approx(list(SEED_COSINES.values()), abs=0.01)


def test_vectors_have_length_one_and_the_models_dimensions(model: OnnxModel) -> None:
    vectors = model.encode(["a", "", "word " * 500, "日本語 🙂"])

    assert vectors.shape == (4, model.dimensions) == (4, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)


def test_no_text_gives_no_vector(model: OnnxModel) -> None:
    assert model.encode([]).shape == (0, 384)


def test_company_in_a_batch_does_not_change_a_vector(model: OnnxModel) -> None:
    texts = [*SEED_DOCUMENTS.values(), "word " * 200, "x"]

    together = model.encode(texts)

    alone = np.vstack([model.encode([text]) for text in texts])
    assert together == pytest.approx(alone, abs=1e-5)


def test_words_beyond_the_context_are_not_looked_at(model: OnnxModel) -> None:
    # 256 tokens with the two special ones.
    within, beyond = "a " * 254, "a " * 254 + "declarations"

    assert model.encode([within]) == pytest.approx(model.encode([beyond]), abs=1e-6)
    assert model.encode(["a " * 253 + "declarations"]) != pytest.approx(
        model.encode([within]), abs=1e-3
    )


def test_the_mean_leaves_out_padding() -> None:
    states = np.array([[[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]]], np.float32)

    pooled = scaled(pool(states, np.array([[1, 1, 0]])))

    assert pooled.tolist() == [pytest.approx([0.6, 0.8])]


def test_cls_is_the_first_state_alone() -> None:
    states = np.array([[[3.0, 4.0], [0.0, 4.0], [9.0, 9.0]]], np.float32)

    pooled = scaled(pool(states, np.array([[1, 1, 0]]), Pooling.CLS))

    assert pooled.tolist() == [pytest.approx([0.6, 0.8])]


def test_a_file_that_is_no_model_is_refused(model_files: OnnxFiles, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"no model")

    with pytest.raises(InvalidModel, match="no ONNX model"):
        OnnxModel(replace(model_files, onnx=junk))
    with pytest.raises(InvalidModel, match="no tokenizer"):
        OnnxModel(replace(model_files, tokenizer=junk))

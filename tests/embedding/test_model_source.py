"""The model's way from where it is into memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evalpool.models.catalogue import find_model
from evalpool.models.errors import ModelFetchError, ModelNotFound
from evalpool.models.sources import parse_source
from evalpool.models.store import ModelStore
from evalpool_embedding.model import InvalidModel
from evalpool_embedding.model_source import CatalogueOrigin, ModelSource, find_origin
from evalpool_embedding.onnx_model import OnnxFiles
from evalpool_runtime.errors import Unavailable

MODEL, TOKENIZER = "all-MiniLM-L6-v2-int8", "all-MiniLM-L6-v2-tokenizer"


async def test_a_stored_model_is_loaded_and_pinned(
    models_dir: Path, model_files: OnnxFiles
) -> None:
    source = ModelSource(find_origin(models_dir, MODEL, TOKENIZER), threads=1)
    assert source.is_here
    assert source.digest == model_files.digest

    await source.load()

    assert (await source.wait()).model.dimensions == source.dimensions == 384
    pinned = {entry.digest for entry in ModelStore(models_dir).entries() if entry.pinned}
    assert {model_files.onnx.name, model_files.tokenizer.name} <= pinned
    await source.close()


async def test_a_model_that_cannot_be_fetched_makes_calls_wait_and_is_loaded_once_it_is_there(
    tmp_path: Path, model_files: OnnxFiles
) -> None:
    store = ModelStore(tmp_path / "store")
    nowhere = parse_source("file:/nowhere/model.onnx")
    model, tokenizer = (
        replace(find_model(name), source=nowhere, size_bytes=None) for name in (MODEL, TOKENIZER)
    )
    source = ModelSource(CatalogueOrigin(store, model, tokenizer), threads=1)
    assert not source.is_here
    assert source.dimensions == 0
    with pytest.raises(Unavailable, match="is being fetched"):
        source.encoder()

    with pytest.raises(ModelFetchError):
        await source.load()
    with pytest.raises(Unavailable, match="could not be fetched yet: file:/nowhere") as raised:
        source.encoder()
    assert raised.value.retry_after == 2.0

    store.put_file(model_files.onnx)
    store.put_file(model_files.tokenizer)
    await source.load()
    assert (await source.encoder().encode(["a", "b"])).shape == (2, 384)
    await source.close()


async def test_a_gguf_file_is_named_by_its_path(models_dir: Path, minilm_gguf: Path) -> None:
    source = ModelSource(find_origin(models_dir, str(minilm_gguf), TOKENIZER), threads=1)

    assert source.is_here
    assert source.name == minilm_gguf.name
    await source.load()
    assert (await source.encoder().encode(["a", "b"])).shape == (2, 384)
    await source.close()


def test_what_leads_to_no_model_is_refused(models_dir: Path, tmp_path: Path) -> None:
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"no model")

    with pytest.raises(InvalidModel, match=r"junk.gguf is no GGUF model: magic .+ see --model"):
        find_origin(models_dir, str(junk), TOKENIZER)
    with pytest.raises(InvalidModel, match=r"has none of model\.onnx"):
        find_origin(models_dir, str(tmp_path), TOKENIZER)
    with pytest.raises(InvalidModel, match="/gone: No such file or directory; see --model"):
        find_origin(models_dir, str(tmp_path / "gone"), TOKENIZER)
    with pytest.raises(ModelNotFound):
        find_origin(models_dir, "no-such-model", TOKENIZER)

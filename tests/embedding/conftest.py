"""The real model from the project's store, and the service on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalpool.models.catalogue import find_model
from evalpool.models.pull import ensure
from evalpool.models.store import ModelStore, default_store_root
from evalpool_embedding.model import EmbeddingModel, ModelFiles

MODEL = "all-MiniLM-L6-v2-int8"
TOKENIZER = "all-MiniLM-L6-v2-tokenizer"


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The user's model store, with the embedding model in it; fetched where it is missing."""
    root = default_store_root()
    store = ModelStore(root)
    for name in (MODEL, TOKENIZER):
        ensure(store, find_model(name))
    return root


@pytest.fixture(scope="session")
def model_files(models_dir: Path) -> ModelFiles:
    """The files of the real model."""
    store = ModelStore(models_dir)
    onnx, tokenizer = (ensure(store, find_model(name)) for name in (MODEL, TOKENIZER))
    return ModelFiles(MODEL, onnx.name, onnx, tokenizer, 256)


@pytest.fixture(scope="session")
def model(model_files: ModelFiles) -> EmbeddingModel:
    """The real model."""
    return EmbeddingModel(model_files)

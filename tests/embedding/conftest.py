"""The real model from the project's store, and the service on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalpool.models.catalogue import find_model
from evalpool.models.pull import ensure
from evalpool.models.store import ModelStore
from evalpool_embedding.model import EmbeddingModel, ModelFiles

MODEL = "all-MiniLM-L6-v2-int8"
TOKENIZER = "all-MiniLM-L6-v2-tokenizer"


@pytest.fixture(scope="session")
def model_files(model_store: ModelStore) -> ModelFiles:
    """The files of the real model, fetched into the project's store where they are missing."""
    onnx, tokenizer = (ensure(model_store, find_model(name)) for name in (MODEL, TOKENIZER))
    return ModelFiles(MODEL, onnx.name, onnx, tokenizer, 256)


@pytest.fixture(scope="session")
def models_dir(model_store: ModelStore, model_files: ModelFiles) -> Path:
    """The folder of a model store that has the real model."""
    return model_store.root


@pytest.fixture(scope="session")
def model(model_files: ModelFiles) -> EmbeddingModel:
    """The real model."""
    return EmbeddingModel(model_files)

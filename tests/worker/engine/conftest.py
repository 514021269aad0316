"""Engines for the contract's tests: the fake one, llama.cpp, and a server with the same model."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from evalpool_worker.engine.base import ChoiceQuestion, Engine
from evalpool_worker.engine.fake import FakeEngine
from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from evalpool_worker.engine.model import LoadedModel
from evalpool_worker.engine.openai import OpenAIEngine
from evalpool_worker.engine.shape import EngineSettings
from evalpool_worker.engine.tokenisation import Tokeniser
from tests.published import EVERYDAY
from tests.worker.engine.llama_cpp_server import LlamaCppServer, llama_cpp_python_server

# One thread: several wait for each other in every step, which takes long on a busy machine.
# A small context, so that a test can fill it.
SETTINGS = EngineSettings(threads=1, score_context_tokens=512, generate_context_tokens=4096)


@pytest.fixture(params=["fake", "llama_cpp", "openai"])
def engine_name(request: pytest.FixtureRequest) -> str:
    """Which engine the contract is tried on."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def llama_cpp_server(
    smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamaCppServer]:
    """llama-cpp-python's own server, with SmolLM2."""
    with llama_cpp_python_server(
        smollm2_path, tmp_path_factory.mktemp("llama-cpp-server") / "log"
    ) as server:
        yield server


@pytest.fixture
async def empty_engine(engine_name: str, request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    """An engine without a model."""
    engine: Engine
    match engine_name:
        case "fake":
            engine = FakeEngine(context_tokens=512)
        case "llama_cpp":
            engine = LlamaCppEngine(SETTINGS)
        case _:
            engine = OpenAIEngine(request.getfixturevalue("llama_cpp_server").settings)
    yield engine
    await engine.close()


@pytest.fixture
def model_path(engine_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that the engine under test loads."""
    if engine_name == "llama_cpp":
        path: Path = request.getfixturevalue("smollm2_path")
        return path
    path = tmp_path / "fake.gguf"
    path.write_bytes(b"GGUF and nothing else")
    return path


@pytest.fixture
async def engine(empty_engine: Engine, model_path: Path) -> Engine:
    """An engine with a loaded model."""
    await empty_engine.load(model_path, "digest-of-the-model")
    return empty_engine


@pytest.fixture(scope="module")
def model(smollm2_path: Path) -> Iterator[LoadedModel]:
    """SmolLM2 without anything that runs it."""
    loaded = LoadedModel(smollm2_path)
    yield loaded
    gc.collect()
    loaded.free()


@pytest.fixture(scope="module")
def tokeniser(model: LoadedModel) -> Tokeniser:
    """Its tokeniser."""
    return Tokeniser(model)


@pytest.fixture
async def llama(smollm2_path: Path) -> AsyncIterator[LlamaCppEngine]:
    """The real engine as a worker runs it."""
    engine = LlamaCppEngine()
    await engine.load(smollm2_path, "digest-of-smollm2")
    yield engine
    await engine.close()


@pytest.fixture(scope="session")
def everyday() -> list[ChoiceQuestion]:
    """The sample questions as lm-evaluation-harness asks them."""
    return [
        ChoiceQuestion(
            id=str(number),
            prompt=f"Q: {row['context']} {row['question']}\nA:",
            choices=tuple(" " + row[key] for key in ("answerA", "answerB", "answerC")),
        )
        for number, row in enumerate(EVERYDAY.rows())
    ]

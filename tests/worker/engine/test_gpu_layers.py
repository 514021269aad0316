"""How much of a model a GPU computes is a setting, which without a GPU changes nothing."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp
import pytest

from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from evalpool_worker.engine.model import LoadedModel
from evalpool_worker.engine.shape import EngineSettings

# SmolLM2's 30 layers and its output.
LAYERS = 31


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What llama.cpp was asked for: layers, and whether it was told of no devices."""
    load = llama_cpp.llama_model_load_from_file
    found: list[Any] = []

    def recording(path: bytes, parameters: llama_cpp.llama_model_params) -> Any:
        devices = parameters.devices
        none = devices is not None and ctypes.c_void_p.from_address(devices).value is None
        found.append((parameters.n_gpu_layers, none))
        return load(path, parameters)

    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", recording)
    return found


@pytest.mark.parametrize(
    ("setting", "layers", "no_devices"), [(-1, LAYERS, False), (5, 5, False), (0, 0, True)]
)
async def test_the_setting_goes_to_llama_cpp_and_is_told_where_a_gpu_is(
    smollm2_path: Path,
    asked: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    setting: int,
    layers: int,
    no_devices: bool,
) -> None:
    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: True)
    engine = LlamaCppEngine(EngineSettings(threads=1, gpu_layers=setting))
    info = await engine.load(smollm2_path, "digest")
    await engine.close()
    assert asked == [(setting, no_devices)]
    assert info.gpu_layers == layers


@pytest.mark.parametrize("setting", [-1, 0, 5])
def test_a_build_without_a_gpu_computes_all_with_the_processor(
    smollm2_path: Path, setting: int
) -> None:
    model = LoadedModel(smollm2_path, gpu_layers=setting)
    model.free()
    assert model.gpu_layers == 0

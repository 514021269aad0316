"""How a model is spread over the machine's cores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evalpool_worker.engine.context import ContextShape
from evalpool_worker.engine.shape import (
    EngineSettings,
    GrowingShape,
    available_cores,
    shape_for,
)

USUAL = ContextShape(cells=2048, batch_tokens=256, sequences=64, outputs=64, threads=2)


def made_up_model(n_ctx_train: int = 8192, n_head: int = 32) -> Any:
    return SimpleNamespace(n_ctx_train=n_ctx_train, n_head=n_head, n_vocab=32_000, parameters=10**9)


@pytest.mark.parametrize(
    ("text", "most"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", 4096)]
)
def test_a_container_quota_limits_the_cores(tmp_path: Path, text: str, most: int) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    assert 1 <= available_cores(quota) <= most


def test_without_a_container_the_affinity_counts(tmp_path: Path) -> None:
    assert available_cores(tmp_path / "absent") >= 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"sequences": 33},
        {"sequences": 0},
        {"outputs": 65},
        {"batch_tokens": 129},
        {"threads": 0},
        {"fewest_tokens": 0, "spare_sequences": 1},
        {"fewest_tokens": 65, "spare_sequences": 1},
        {"fewest_tokens": 2},
    ],
)
def test_a_shape_that_would_end_the_process_is_refused(wrong: dict[str, int]) -> None:
    sound: dict[str, Any] = {
        "cells": 128,
        "batch_tokens": 64,
        "sequences": 32,
        "outputs": 32,
        "threads": 1,
    }
    ContextShape(**sound)
    with pytest.raises(ValueError, match="must"):
        ContextShape(**{**sound, **wrong})


@pytest.mark.parametrize(
    ("tokens", "cells"),
    [(1, 2048), (2048, 2048), (2049, 4096), (4097, 8192), (8193, 16384), (24_000, 24_000)],
)
def test_a_context_doubles_until_it_holds_what_it_must(tokens: int, cells: int) -> None:
    shapes = GrowingShape(USUAL, made_up_model(n_ctx_train=24_000))
    assert shapes.holding(tokens).cells == cells
    assert shapes.most == 24_000


def test_the_batches_of_a_long_context_keep_attention_in_bounds() -> None:
    shapes = GrowingShape(USUAL, made_up_model(n_ctx_train=131_072))
    assert shapes.holding(2048) == USUAL
    batches = {cells: shapes.holding(cells).batch_tokens for cells in (4096, 8192, 32_768, 131_072)}
    assert batches == {4096: 256, 8192: 128, 32_768: 32, 131_072: 16}
    fused = GrowingShape(replace(USUAL, flash_attention=True), made_up_model(n_ctx_train=131_072))
    assert fused.holding(131_072) == replace(USUAL, cells=131_072, flash_attention=True)


def test_a_shorter_batch_asks_for_no_more_filling_than_it_holds() -> None:
    filled = replace(USUAL, fewest_tokens=64, spare_sequences=1)
    shapes = GrowingShape(filled, made_up_model(n_ctx_train=131_072))
    assert [shapes.holding(cells).fewest_tokens for cells in (2048, 8192, 131_072)] == [64, 64, 16]


def test_as_many_streams_as_llama_cpp_takes() -> None:
    shape = shape_for(made_up_model(), EngineSettings(threads=1, generate_slots=1024))
    assert shape.generate.sequences == 255
    few = EngineSettings(threads=1, generate_slots=64, generate_chunk_tokens=32)
    assert shape_for(made_up_model(), few).generate.sequences == 32

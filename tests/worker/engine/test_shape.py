"""How a model is spread over the machine's cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalpool_worker.engine.context import ContextShape
from evalpool_worker.engine.shape import available_cores


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

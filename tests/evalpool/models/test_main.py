"""The helper for set-up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evalpool.models import ModelStore, find_model
from evalpool.models.__main__ import main

NAME = "SmolLM2-135M-Instruct.Q4_1"


def test_fetch_prints_name_digest_and_path(
    model_store: ModelStore, smollm2_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", NAME, "--store", str(model_store.root)]) == 0
    assert capsys.readouterr() == (f"{NAME}\t{find_model(NAME).sha256}\t{smollm2_path}\n", "")


def test_an_unknown_name_is_one_line_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "gpt-5", "--store", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: the catalogue has no model 'gpt-5'")
    assert err.count("\n") == 1


def test_what_can_not_be_fetched_is_one_line_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    assert main(["fetch", "phi-2-q4_k_m", "--store", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "hub.invalid" in err


def test_it_runs_as_a_module(model_store: ModelStore, smollm2_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "evalpool.models", "fetch", NAME],
        env={"EVALPOOL_MODEL_STORE": str(model_store.root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.endswith(f"{smollm2_path}\n")
    assert result.stderr == ""

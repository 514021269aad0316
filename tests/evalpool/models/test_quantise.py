"""Quantising a real model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evalpool.models import InvalidGguf, QuantiseError, quantise, read_gguf, sha256_of


def test_a_model_becomes_one_of_another_type_the_same_each_time(
    smollm2_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for threads in (1, 2):
        quantise(smollm2_path, tmp_path / f"{threads}.gguf", "q4_0", threads=threads)
    header, before = read_gguf(tmp_path / "1.gguf"), read_gguf(smollm2_path)
    assert header.quantisation == "Q4_0"
    assert header.parameters == before.parameters
    assert header.context_length == before.context_length
    assert sha256_of(tmp_path / "1.gguf") == sha256_of(tmp_path / "2.gguf")
    assert capfd.readouterr() == ("", "")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["1.gguf", "2.gguf"]


def test_a_kind_that_is_none_is_refused_with_the_choice(smollm2_path: Path, tmp_path: Path) -> None:
    with pytest.raises(QuantiseError, match="Q8_0"):
        quantise(smollm2_path, tmp_path / "out.gguf", "Q7")


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"no model")
    with pytest.raises(InvalidGguf):
        quantise(tmp_path / "a.gguf", tmp_path / "out.gguf", "Q8_0")
    assert not (tmp_path / "out.gguf").exists()


def test_what_llama_cpp_refuses_is_told_with_its_reason_and_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from tests.evalpool.models.gguf_writer import Gguf, string

    gguf = Gguf().replace("general.architecture", string("no-such-architecture"))
    (tmp_path / "a.gguf").write_bytes(gguf.to_bytes())
    with pytest.raises(QuantiseError, match="no-such-architecture"):
        quantise(tmp_path / "a.gguf", tmp_path / "out.gguf", "Q8_0")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.gguf"]
    assert capfd.readouterr() == ("", "")


def test_without_llama_cpp_the_error_names_the_extra(
    smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp.llama_cpp", None)
    with pytest.raises(QuantiseError, match=r"evalpool\[worker\]"):
        quantise(smollm2_path, tmp_path / "out.gguf", "Q8_0")

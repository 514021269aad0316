"""What the embedding service can be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalpool_embedding.settings import EmbeddingSettings
from evalpool_runtime.settings import InvalidSettings


@pytest.mark.parametrize("name", ["no-such-model", "SmolLM2-135M-Instruct.Q4_1", ""])
@pytest.mark.parametrize("flag", ["model", "tokenizer"])
def test_a_name_of_no_embedding_model_is_refused_with_those_that_there_are(
    flag: str, name: str
) -> None:
    with pytest.raises(InvalidSettings) as caught:
        EmbeddingSettings.load(**{flag: name})

    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"--{flag} (EVALPOOL_EMBEDDING_{flag.upper()}): ")
    assert "all-MiniLM-L6-v2-int8" in line


def test_a_models_name_is_taken_without_regard_to_case() -> None:
    assert EmbeddingSettings.load(model="ALL-MINILM-L6-V2-INT8").model == "all-MiniLM-L6-v2-int8"


def test_a_model_may_be_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").touch()
    (tmp_path / "export").mkdir()
    monkeypatch.chdir(tmp_path)

    for name in ("model.gguf", "export", str(tmp_path / "export")):
        assert EmbeddingSettings.load(model=name).model == str(tmp_path / Path(name).name)


def test_a_name_of_the_catalogue_is_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "all-MiniLM-L6-v2-int8").mkdir()
    monkeypatch.chdir(tmp_path)

    assert EmbeddingSettings.load().model == "all-MiniLM-L6-v2-int8"


def test_a_header_is_checked_and_never_shown() -> None:
    settings = EmbeddingSettings.load(chroma_header="x-chroma-token: secret")
    assert "secret" not in repr(settings) + str(settings)

    with pytest.raises(InvalidSettings, match="CHROMA_HEADER") as caught:
        EmbeddingSettings.load(chroma_header="secret")
    assert "secret" not in str(caught.value)

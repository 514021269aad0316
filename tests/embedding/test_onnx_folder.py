"""Folders of models that were exported from Hugging Face, built around the real one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalpool_embedding.model import MAX_CONTEXT_LENGTH, InvalidModel, Pooling
from evalpool_embedding.onnx_folder import DEFAULT_CONTEXT_LENGTH, read_onnx_folder
from evalpool_embedding.onnx_model import OnnxFiles, OnnxModel

Folder = Callable[..., Path]
NAMES = ("model.onnx", "onnx/model.onnx", "model_quantized.onnx", "onnx/model_quantized.onnx")

# What lies beside all-MiniLM-L6-v2's weights.
SENTENCE_TRANSFORMER: dict[str, Any] = {
    "config.json": {"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0},
    "tokenizer_config.json": {"model_max_length": 512},
    "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
    "modules.json": [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "1_Pooling/config.json": {
        "word_embedding_dimension": 384,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
    },
}


@pytest.fixture
def folder(tmp_path: Path, model_files: OnnxFiles) -> Folder:
    """Makes a folder with the real model's ONNX file and tokenizer, and JSON files beside."""

    def make(name: str = "model.onnx", **described: Any) -> Path:
        made = tmp_path / "export"
        shutil.rmtree(made, ignore_errors=True)
        (made / name).parent.mkdir(parents=True)
        (made / name).symlink_to(model_files.onnx)
        (made / "tokenizer.json").symlink_to(model_files.tokenizer)
        for path, value in described.items():
            (made / path).parent.mkdir(exist_ok=True)
            (made / path).write_text(value if isinstance(value, str) else json.dumps(value))
        return made

    return make


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_export_gives_the_same_vectors_as_the_catalogues_model(
    folder: Folder, model: OnnxModel, name: str
) -> None:
    files = read_onnx_folder(folder(name, **SENTENCE_TRANSFORMER))

    assert (files.name, files.pooling, files.context_length) == ("export", Pooling.MEAN, 256)
    assert files.digest == model.digest, "it is the same model"
    texts = ["a cat", "word " * 300]
    assert OnnxModel(files).encode(texts) == pytest.approx(model.encode(texts), abs=1e-6)


def test_the_full_model_is_taken_before_the_quantised_one(folder: Folder) -> None:
    made = folder("onnx/model.onnx")
    (made / "model_quantized.onnx").write_bytes(b"another")

    assert read_onnx_folder(made).onnx == made / "onnx" / "model.onnx"


def test_a_bare_export_is_averaged_and_cut_where_most_models_end(folder: Folder) -> None:
    files = read_onnx_folder(folder())

    assert (files.pooling, files.context_length) == (Pooling.MEAN, DEFAULT_CONTEXT_LENGTH)


@pytest.mark.parametrize(
    "stated",
    [
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        {"pooling_mode": "cls"},
    ],
)
def test_a_model_that_pools_by_its_first_token_is_pooled_so(
    folder: Folder, model: OnnxModel, stated: dict[str, Any]
) -> None:
    files = read_onnx_folder(folder(**{"1_Pooling/config.json": stated}))

    assert files.pooling is Pooling.CLS
    vectors = OnnxModel(files).encode(["a cat", "a longer text about a cat"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(2), abs=1e-5)
    assert vectors != pytest.approx(model.encode(["a cat", "a longer text about a cat"]), abs=0.01)
    alone = OnnxModel(files).encode(["a cat"])
    assert vectors[:1] == pytest.approx(alone, abs=1e-5)


def test_where_the_modules_say_so_pooling_is_elsewhere(folder: Folder) -> None:
    modules = [{"path": "pool", "type": "sentence_transformers.models.Pooling"}]
    made = folder(**{"modules.json": modules, "pool/config.json": {"pooling_mode": "cls"}})

    assert read_onnx_folder(made).pooling is Pooling.CLS


@pytest.mark.parametrize(
    ("described", "length"),
    [
        ({"sentence_bert_config.json": {"max_seq_length": 128}}, 128),
        ({"tokenizer_config.json": {"model_max_length": 64}}, 64),
        ({"tokenizer_config.json": {"model_max_length": int(1e30)}}, MAX_CONTEXT_LENGTH),
        ({"config.json": {"max_position_embeddings": 100}}, 100),
        ({"config.json": {"max_position_embeddings": 8192}}, MAX_CONTEXT_LENGTH),
        (
            {
                "config.json": {
                    "model_type": "xlm-roberta",
                    "max_position_embeddings": 514,
                    "pad_token_id": 1,
                }
            },
            512,
        ),
        ({"sentence_bert_config.json": {"max_seq_length": None}}, DEFAULT_CONTEXT_LENGTH),
    ],
)
def test_a_text_is_cut_where_the_files_say_that_the_model_ends(
    folder: Folder, described: dict[str, Any], length: int
) -> None:
    assert read_onnx_folder(folder(**described)).context_length == length


def test_everything_that_bears_on_vectors_is_in_the_digest(folder: Folder) -> None:
    def digest(**described: Any) -> str:
        return read_onnx_folder(folder(**SENTENCE_TRANSFORMER | described)).digest

    def changed(name: str, content: bytes) -> str:
        made = folder(**SENTENCE_TRANSFORMER)
        (made / name).unlink(missing_ok=True)
        (made / name).write_bytes(content)
        return read_onnx_folder(made).digest

    digests = [
        digest(),
        digest(**{"sentence_bert_config.json": {"max_seq_length": 128}}),
        digest(**{"1_Pooling/config.json": {"pooling_mode": "cls"}}),
        changed("model.onnx", b"x"),
        changed("tokenizer.json", b"x"),
        changed("model.onnx_data", b"x"),
        changed("model.onnx.data", b"y"),
    ]
    assert len(set(digests)) == len(digests)
    assert digest(**{"README.md": "of no account"}) == digests[0]


@pytest.mark.parametrize(
    ("described", "problem"),
    [
        ({"config.json": "{"}, "config.json is no JSON"),
        ({"config.json": []}, "config.json is JSON of another kind"),
        ({"1_Pooling/config.json": {"pooling_mode": "max"}}, "pools by max"),
        (
            {
                "1_Pooling/config.json": {
                    "pooling_mode_cls_token": True,
                    "pooling_mode_mean_tokens": True,
                }
            },
            "pools by cls_token, mean_tokens",
        ),
        (
            {"modules.json": [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]},
            "a module 'Dense'",
        ),
    ],
)
def test_a_model_of_an_unknown_make_is_refused_by_name(
    folder: Folder, described: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidModel, match=f"{problem}.*see --model"):
        read_onnx_folder(folder(**described))


def test_a_folder_without_a_model_or_a_tokenizer_is_refused(folder: Folder) -> None:
    made = folder()
    (made / "tokenizer.json").unlink()
    with pytest.raises(InvalidModel, match=r"no tokenizer.json; .+ see --model"):
        read_onnx_folder(made)

    (made / "model.onnx").unlink()
    with pytest.raises(InvalidModel, match=r"none of model.onnx, .+ see --model"):
        read_onnx_folder(made)

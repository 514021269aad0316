"""A folder of a model that was exported from Hugging Face to ONNX, and what it says of itself.

What is read, all of it beside `tokenizer.json` and the ONNX file may be missing::

    model.onnx, onnx/model.onnx, model_quantized.onnx, onnx/model_quantized.onnx   the first of them
    tokenizer.json
    modules.json                    what a sentence transformer is made of
    1_Pooling/config.json           how hidden states become a vector; the mean unless it says cls
    sentence_bert_config.json       max_seq_length
    tokenizer_config.json           model_max_length
    config.json                     max_position_embeddings
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evalpool.models import sha256_of
from evalpool_embedding.model import MAX_CONTEXT_LENGTH, InvalidModel, Pooling, digest_of
from evalpool_embedding.onnx_model import OnnxFiles

_FILES = (
    "model.onnx",
    "onnx/model.onnx",
    "model_quantized.onnx",
    "onnx/model_quantized.onnx",
)

# Weights that do not fit into the ONNX file, as the usual exporters name them.
_DATA_SUFFIXES = ("_data", ".data")

DEFAULT_CONTEXT_LENGTH = 512
"""Tokens of a text that are looked at where no file of the folder says."""

# What the contract does with every vector anyway is no further part of a model.
_KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}
_POOLING_PREFIX = "pooling_mode_"
_POOLINGS = {
    "mean": Pooling.MEAN,
    "mean_tokens": Pooling.MEAN,
    "cls": Pooling.CLS,
    "cls_token": Pooling.CLS,
}


def read_onnx_folder(folder: Path) -> OnnxFiles:
    """What is in a folder, with the digest of all that bears on vectors. Reads the whole files.

    Raises:
        InvalidModel: A file is missing or damaged, or the model is made in a way that is not known.
        OSError: A file cannot be read.
    """
    onnx = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if onnx is None:
        raise InvalidModel(
            f"the folder {folder} has none of {', '.join(_FILES)}; export the model to ONNX, and "
            "see --model"
        )
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise InvalidModel(
            f"the folder {folder} has no tokenizer.json; save the model's fast tokenizer there, "
            "and see --model"
        )
    pooling, context_length = _pooling(folder), _context_length(folder)
    data = [onnx.with_name(onnx.name + suffix) for suffix in _DATA_SUFFIXES]
    return OnnxFiles(
        name=folder.name,
        digest=digest_of(
            onnx=sha256_of(onnx),
            onnx_data=[sha256_of(each) for each in data if each.is_file()],
            tokenizer=sha256_of(tokenizer),
            pooling=pooling,
            context_length=context_length,
        ),
        onnx=onnx,
        tokenizer=tokenizer,
        context_length=context_length,
        pooling=pooling,
        remedy=f"see --model ({folder})",
    )


def _pooling(folder: Path) -> Pooling:
    """How the folder says that hidden states become a vector; the mean where it does not say."""
    place = folder / "1_Pooling" / "config.json"
    for module in _read(folder / "modules.json", list):
        kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else ""
        if kind not in _KNOWN_MODULES:
            raise InvalidModel(
                f"the model in {folder} has a module {kind[:60]!r} (modules.json), which is not "
                "known; use one of a transformer, pooling and normalisation, and see --model"
            )
        if kind == "Pooling" and isinstance(module.get("path"), str):
            place = folder / module["path"] / "config.json"
    stated = _read(place, dict)
    chosen = {
        name.removeprefix(_POOLING_PREFIX)
        for name, value in stated.items()
        if name.startswith(_POOLING_PREFIX) and value is True
    }
    if isinstance(stated.get("pooling_mode"), str):
        chosen = {stated["pooling_mode"]}
    found = {_POOLINGS.get(name) for name in chosen} or {Pooling.MEAN}
    pooling = found.pop()
    if found or pooling is None:
        raise InvalidModel(
            f"the model in {folder} pools by {', '.join(sorted(chosen))[:80]} ({place.name} of "
            f"{place.parent.name}); only mean and cls are known; see --model"
        )
    return pooling


def _context_length(folder: Path) -> int:
    config = _read(folder / "config.json", dict)
    positions = config.get("max_position_embeddings")
    if _is_length(positions) and "roberta" in str(config.get("model_type", "")):
        # Its positions are counted from the one after the padding's.
        padding = config.get("pad_token_id")
        positions -= (padding if _is_length(padding) else 0) + 1
    stated = (
        _read(folder / "sentence_bert_config.json", dict).get("max_seq_length"),
        _read(folder / "tokenizer_config.json", dict).get("model_max_length"),
        positions,
    )
    # A tokenizer without a bound of its own says 10^30, as a float.
    lengths = [length for length in stated if _is_length(length)]
    return min([*lengths, MAX_CONTEXT_LENGTH]) if lengths else DEFAULT_CONTEXT_LENGTH


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _read(path: Path, kind: type[Any]) -> Any:
    """A JSON file of this kind, an empty one where there is none.

    Raises:
        InvalidModel: It is anything else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return kind()
    except ValueError as error:
        raise InvalidModel(f"{path} is no JSON: {error}; see --model") from error
    if not isinstance(value, kind):
        raise InvalidModel(f"{path} is JSON of another kind than its name says; see --model")
    return value

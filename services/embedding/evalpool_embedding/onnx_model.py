"""Embedding models in the form of ONNX, by ONNX Runtime.

A sentence transformer in the form of Reimers and Gurevych (2019): the encoder's last hidden states
are averaged over the attention mask, or the first one is taken, as the model was trained.

The int8 file of all-MiniLM-L6-v2 keeps its weights in 8 bits and computes in 32-bit floats. Which
texts share a batch thus changes a vector by no more than rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from evalpool_embedding.model import (
    MAX_THREADS,
    InvalidModel,
    Pooling,
    Vectors,
    plan_batches,
    scaled,
)

BATCH_TEXTS = 64
BATCH_TOKENS = 1024

# What an encoder may ask for. Others, such as a decoder's cache, have nobody to fill them.
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


@dataclass(frozen=True, slots=True)
class OnnxFiles:
    """What a model is made of.

    Attributes:
        name: How its operator calls it.
        digest: That of all that its vectors depend on.
        onnx: Its ONNX file.
        tokenizer: Its `tokenizer.json`.
        context_length: The tokens of a text that it looks at.
        pooling: How hidden states become a vector.
        remedy: What to do where they cannot be used, such as "see --model".
    """

    name: str
    digest: str
    onnx: Path
    tokenizer: Path
    context_length: int
    pooling: Pooling = Pooling.MEAN
    remedy: str = "see --model"


class OnnxModel:
    """A model that ONNX Runtime computes.

    Attributes:
        files: What it was loaded from.
        name: How its operator calls it.
        digest: That of all that its vectors depend on.
        dimensions: Numbers in a vector.
    """

    def __init__(self, files: OnnxFiles, *, threads: int = MAX_THREADS) -> None:
        """Load a model.

        Args:
            files: What it is made of.
            threads: Threads that one batch is computed by, at most 2.

        Raises:
            InvalidModel: A file is not what it should be.
        """
        self.files = files
        self.name = files.name
        self.digest = files.digest
        self._tokenizer = _load_tokenizer(files)
        self._session = _open_session(files, min(threads, MAX_THREADS))
        self._inputs = _inputs(self._session, files)
        self._output, self._is_pooled, self.dimensions = _output(self._session, files)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """The vectors of texts, one a row, shape (texts, dimensions)."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        lengths = [len(each.ids) for each in encodings]
        for places in plan_batches(lengths, max_texts=BATCH_TEXTS, max_tokens=BATCH_TOKENS):
            vectors[places] = self._encode_batch([encodings[place] for place in places])
        return vectors

    def close(self) -> None:
        """Nothing: the memory goes with the last reference."""

    def _encode_batch(self, encodings: Sequence[Encoding]) -> Vectors:
        # A text of no token at all is looked at as if it had one, which the mask leaves out.
        longest = max(1, *(len(each.ids) for each in encodings))
        ids = np.zeros((len(encodings), longest), np.int64)
        mask = np.zeros((len(encodings), longest), np.int64)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            mask[row, : len(encoding.ids)] = 1
        given = self._run(ids, mask)
        return scaled(given if self._is_pooled else pool(given, mask, self.files.pooling))

    def _run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        given: NDArray[np.float32] = self._session.run(
            [self._output],
            {name: feed[name].astype(kind, copy=False) for name, kind in self._inputs.items()},
        )[0]
        return given.astype(np.float32, copy=False)


def pool(
    states: NDArray[np.float32], mask: NDArray[np.int64], pooling: Pooling = Pooling.MEAN
) -> NDArray[np.float32]:
    """One row a text, of no particular length, from its hidden states.

    Args:
        states: Hidden states, shape (texts, tokens, dimensions).
        mask: 1 for a token, 0 for padding, shape (texts, tokens).
        pooling: The sum over the mask, whose direction is the mean's, or the first state.
    """
    if pooling is Pooling.CLS:
        return states[:, 0, :]
    # A product of matrices sums over the tokens without a copy of the states.
    sums: NDArray[np.float32] = np.matmul(mask.astype(np.float32)[:, None, :], states)[:, 0, :]
    return sums


def _inputs(session: Any, files: OnnxFiles) -> dict[str, Any]:
    """The kind of integer that each of the model's inputs takes, by its name."""
    kinds = {each.name: _INTEGERS.get(each.type) for each in session.get_inputs()}
    unknown = sorted(name for name, kind in kinds.items() if name not in _INPUTS or kind is None)
    if unknown or "input_ids" not in kinds:
        raise InvalidModel(
            f"{files.onnx.name} is no encoder of texts: it asks for "
            f"{', '.join(unknown) or 'no input_ids'}; export it for feature extraction, and "
            f"{files.remedy}"
        )
    return kinds


def _output(session: Any, files: OnnxFiles) -> tuple[str, bool, int]:
    """The name of the output to read, whether it is pooled already, and the numbers of a vector.

    Hidden states are taken before what the export pooled by itself: how is stated beside them.
    """
    outputs = session.get_outputs()
    for dimensions in (3, 2):
        for each in outputs:
            # Scores of words or classes are no states.
            if each.name == "logits" or len(each.shape) != dimensions:
                continue
            if isinstance(each.shape[-1], int):
                return each.name, dimensions == 2, each.shape[-1]
    raise InvalidModel(
        f"{files.onnx.name} is no encoder of texts: none of its outputs is of hidden states; "
        f"export it for feature extraction, and {files.remedy}"
    )


def _load_tokenizer(files: OnnxFiles) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(files.tokenizer))
    except Exception as error:  # the library raises nothing narrower
        raise InvalidModel(
            f"{files.tokenizer.name} is no tokenizer: {error}; see --tokenizer"
        ) from error
    # The file's own settings pad every text to one length and cut it at half of the context.
    tokenizer.no_padding()
    tokenizer.enable_truncation(files.context_length)
    return tokenizer


def _open_session(files: OnnxFiles, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # The arena keeps the most that any batch ever took; the allocator gives it back.
    options.enable_cpu_mem_arena = False
    # Threads that wait must not take a core from others on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(files.onnx), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the library raises classes that it does not export
        raise InvalidModel(
            f"{files.onnx.name} is no ONNX model: {error}; {files.remedy}"
        ) from error

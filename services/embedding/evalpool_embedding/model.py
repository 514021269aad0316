"""The embedding model: texts to vectors, by ONNX Runtime.

A sentence transformer in the form of Reimers and Gurevych (2019): the encoder's last hidden states
are averaged over the attention mask, and the average is scaled to length 1, so that a dot product
of two vectors is the cosine of their angle. A text beyond the model's context length is cut there.

The int8 file of all-MiniLM-L6-v2 keeps its weights in 8 bits and computes in 32-bit floats. Which
texts share a batch thus changes a vector by no more than rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from evalpool_runtime.start import CannotStart

MAX_THREADS = 2
BATCH_TEXTS = 64
BATCH_TOKENS = 1024

Vectors = NDArray[np.float32]
"""Vectors of length 1, one a row."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a model is made of.

    Attributes:
        name: Its name in the catalogue.
        digest: The SHA-256 of its ONNX file.
        onnx: Its ONNX file.
        tokenizer: Its `tokenizer.json`.
        context_length: The tokens of a text that it looks at.
    """

    name: str
    digest: str
    onnx: Path
    tokenizer: Path
    context_length: int


class InvalidModel(CannotStart):
    """A file that is no embedding model, or no tokenizer."""


def plan_batches(
    lengths: Sequence[int], *, max_texts: int = BATCH_TEXTS, max_tokens: int = BATCH_TOKENS
) -> Iterator[list[int]]:
    """Put texts of like length together, so that little is computed for padding.

    Args:
        lengths: The tokens of each text.
        max_texts: Texts in a batch, at most.
        max_tokens: Tokens in a batch with its padding, at most; a longer text is alone.

    Yields:
        The places of the texts of one batch. Every text is in exactly one.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        # Lengths rise, so that this text would be the batch's longest.
        if batch and (len(batch) == max_texts or (len(batch) + 1) * lengths[place] > max_tokens):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


class EmbeddingModel:
    """A loaded model. Every method computes in the calling thread; all are safe in threads.

    Attributes:
        files: What it was loaded from.
        dimensions: Numbers in a vector.
    """

    def __init__(self, files: ModelFiles, *, threads: int = MAX_THREADS) -> None:
        """Load a model.

        Args:
            files: What it is made of.
            threads: Threads that one batch is computed by, at most 2.

        Raises:
            InvalidModel: A file is not what it should be.
        """
        self.files = files
        self._tokenizer = _load_tokenizer(files)
        self._session = _open_session(files, min(threads, MAX_THREADS))
        self._inputs = {each.name for each in self._session.get_inputs()}
        output = self._session.get_outputs()[0]
        if "input_ids" not in self._inputs or not isinstance(output.shape[-1], int):
            raise InvalidModel(f"{files.onnx.name} is no encoder of texts; see --model")
        self.dimensions: int = output.shape[-1]

    def encode(self, texts: Sequence[str]) -> Vectors:
        """The vectors of texts, one a row, shape (texts, dimensions)."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for places in plan_batches([len(each.ids) for each in encodings]):
            vectors[places] = self._encode_batch([encodings[place] for place in places])
        return vectors

    def _encode_batch(self, encodings: Sequence[Encoding]) -> Vectors:
        longest = max(len(each.ids) for each in encodings)
        ids = np.zeros((len(encodings), longest), np.int64)
        mask = np.zeros((len(encodings), longest), np.int64)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            mask[row, : len(encoding.ids)] = 1
        return pool(self._run(ids, mask), mask)

    def _run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        states: NDArray[np.float32] = self._session.run(
            None, {name: value for name, value in feed.items() if name in self._inputs}
        )[0]
        return states


def pool(states: NDArray[np.float32], mask: NDArray[np.int64]) -> Vectors:
    """The mean of the hidden states over the mask, scaled to length 1.

    Args:
        states: Hidden states, shape (texts, tokens, dimensions).
        mask: 1 for a token, 0 for padding, shape (texts, tokens).
    """
    weights = mask.astype(np.float32)
    # A product of matrices sums over the tokens without a copy of the states.
    means = np.matmul(weights[:, None, :], states)[:, 0, :]
    # The number of tokens would cancel out in the scaling.
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    pooled: Vectors = means / np.maximum(lengths, np.finfo(np.float32).tiny)
    return pooled


def _load_tokenizer(files: ModelFiles) -> Tokenizer:
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


def _open_session(files: ModelFiles, threads: int) -> Any:
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
        raise InvalidModel(f"{files.onnx.name} is no ONNX model: {error}; see --model") from error

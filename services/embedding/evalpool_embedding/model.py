"""What an embedding model is, and what its kinds share.

Vectors are scaled to length 1, so that a dot product of two is the cosine of their angle. A text
beyond the model's context length is cut there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evalpool_runtime.start import CannotStart

MAX_THREADS = 2
MAX_CONTEXT_LENGTH = 2048
"""Tokens of a text that are looked at, at most: what attention takes grows with their square."""

Vectors = NDArray[np.float32]
"""Vectors of length 1, one a row."""


class Pooling(StrEnum):
    """How the hidden states of a text's tokens become its vector."""

    MEAN = "mean"
    CLS = "cls"


class InvalidModel(CannotStart):
    """A file that is no embedding model, or no tokenizer."""


class EmbeddingModel(Protocol):
    """A loaded model. Every method computes in the calling thread; all are safe in threads.

    Attributes:
        name: How its operator calls it.
        digest: That of all that its vectors depend on.
        dimensions: Numbers in a vector.
    """

    name: str
    digest: str
    dimensions: int

    def encode(self, texts: Sequence[str]) -> Vectors:
        """The vectors of texts, one a row, shape (texts, dimensions)."""
        ...

    def close(self) -> None:
        """Give its memory back; nobody may use it any more."""
        ...


def digest_of(**parts: str | int | Sequence[str]) -> str:
    """The SHA-256 over all that a model's vectors depend on, such as its files' digests."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def plan_batches(lengths: Sequence[int], *, max_texts: int, max_tokens: int) -> Iterator[list[int]]:
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


def scaled(rows: NDArray[np.float32]) -> Vectors:
    """Rows scaled to length 1.

    Raises:
        ArithmeticError: A number is none that could be compared; the model cannot be used.
    """
    if not np.isfinite(rows).all():
        raise ArithmeticError("the model gave numbers that are not finite")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    vectors: Vectors = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return vectors

"""Logits to log-probabilities of chosen tokens, over a whole batch at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Rows taken at once: a block of exponentials this high stays in the processor's cache.
_BLOCK_ROWS = 4


def log_normalisers(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log of the sum of exponentials of every row.

    The exponentials are taken in 32 bits, shifted by the row's maximum so that none overflows;
    they are summed in 64.

    Args:
        logits: Shape (rows, n_vocab).

    Returns:
        Shape (rows,); NaN or infinite for a row that is not finite.
    """
    rows = logits.shape[0]
    normalisers = np.empty(rows, dtype=np.float64)
    block = np.empty((min(_BLOCK_ROWS, rows), logits.shape[1]), dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, rows, _BLOCK_ROWS):
            part = logits[start : start + _BLOCK_ROWS]
            shifted = block[: part.shape[0]]
            highest = part.max(axis=1, keepdims=True)
            np.subtract(part, highest, out=shifted)
            np.exp(shifted, out=shifted)
            total = shifted.sum(axis=1, dtype=np.float64)
            normalisers[start : start + _BLOCK_ROWS] = highest[:, 0] + np.log(total)
    return normalisers


def token_log_probabilities(
    logits: NDArray[np.float32],
    normalisers: NDArray[np.float64],
    rows: NDArray[np.intp],
    tokens: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Log-probability of one token after each of the given rows.

    Args:
        logits: Shape (all rows, n_vocab).
        normalisers: Shape (all rows,), from `log_normalisers`.
        rows: Shape (n,), which row predicts the token.
        tokens: Shape (n,), the token.

    Returns:
        Shape (n,), natural logarithms; not finite where the model's logits are not.
    """
    values: NDArray[np.float64] = logits[rows, tokens].astype(np.float64) - normalisers[rows]
    return values


def likeliest_tokens(logits: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """The tokens with the highest logits of one row, without sorting all of them.

    Args:
        logits: Shape (n_vocab,).
        count: How many; at most the whole vocabulary.

    Returns:
        Shape (count,), the highest first; of equal ones, the one with the lower number.
    """
    count = min(count, len(logits))
    if count == 0:
        return np.empty(0, dtype=np.intp)
    # All that reach the last place, in the vocabulary's order, which a stable sort keeps.
    reached = np.flatnonzero(logits >= np.partition(logits, -count)[-count])
    order = np.argsort(-logits[reached], kind="stable")[:count]
    highest: NDArray[np.intp] = reached[order]
    return highest

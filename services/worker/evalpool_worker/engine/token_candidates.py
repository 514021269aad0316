"""Candidates for the next token, laid out as llama.cpp's samplers take them."""

from __future__ import annotations

import llama_cpp
import numpy as np
from numpy.typing import ArrayLike, NDArray

# The layout of `llama_token_data`.
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


def new_candidates(tokens: NDArray[np.int32], logits: ArrayLike) -> NDArray[np.void]:
    """Candidates with these tokens and logits, one logit for all or one for each."""
    candidates = np.zeros(len(tokens), dtype=_CANDIDATE)
    candidates["id"] = tokens
    candidates["logit"] = logits
    return candidates


def as_array(candidates: NDArray[np.void]) -> llama_cpp.llama_token_data_array:
    """What llama.cpp takes; the candidates must outlive it."""
    return llama_cpp.llama_token_data_array(
        data=candidates.ctypes.data_as(llama_cpp.llama_token_data_p),
        size=len(candidates),
        selected=-1,
        sorted=False,
    )

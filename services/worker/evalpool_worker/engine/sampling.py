"""Choosing the next token of one stream: a chain of llama.cpp's samplers, and its grammar."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from .base import SamplingParameters
from .context import DecodeContext
from .errors import EngineError, InvalidParametersError
from .library import start_library
from .model import LoadedModel

# The layout of `llama_token_data`.
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])

# llama.cpp parses grammars recursively on the thread's stack, without a limit of its own.
_LONGEST_GRAMMAR = 64 * 1024
_DEEPEST_GRAMMAR = 100


class GrammarExhaustedError(EngineError):
    """The grammar allows no token of the vocabulary here."""


class TokenSampler:
    """Samples the tokens of one stream.

    Args:
        model: Must outlive the sampler.
        parameters: Validated.
        prompt: The stream's prompt; the penalties look at its end.

    Raises:
        InvalidParametersError: The grammar can't be parsed.
    """

    def __init__(
        self, model: LoadedModel, parameters: SamplingParameters, prompt: Sequence[int]
    ) -> None:
        self._n_vocab = model.n_vocab
        self._grammar = _grammar(model, parameters.grammar) if parameters.grammar else None
        self._chain = llama_cpp.llama_sampler_chain_init(
            llama_cpp.llama_sampler_chain_default_params()
        )
        penalises = (
            parameters.repeat_penalty != 1.0
            or parameters.frequency_penalty != 0.0
            or parameters.presence_penalty != 0.0
        ) and parameters.penalty_last_n > 0
        self._greedy = parameters.temperature == 0.0 and not penalises and self._grammar is None
        # The order of llama.cpp's own default chain.
        if penalises:
            self._add(
                llama_cpp.llama_sampler_init_penalties(
                    model.n_vocab,
                    parameters.penalty_last_n,
                    parameters.repeat_penalty,
                    parameters.frequency_penalty,
                    parameters.presence_penalty,
                )
            )
        if parameters.temperature == 0.0:
            self._add(llama_cpp.llama_sampler_init_greedy())
        else:
            if parameters.top_k > 0:
                self._add(llama_cpp.llama_sampler_init_top_k(parameters.top_k))
            if parameters.top_p < 1.0:
                self._add(llama_cpp.llama_sampler_init_top_p(parameters.top_p, 1))
            if parameters.min_p > 0.0:
                self._add(llama_cpp.llama_sampler_init_min_p(parameters.min_p, 1))
            self._add(llama_cpp.llama_sampler_init_temp(parameters.temperature))
            self._add(llama_cpp.llama_sampler_init_dist(parameters.seed))
        if penalises:
            for token in prompt[-parameters.penalty_last_n :]:
                llama_cpp.llama_sampler_accept(self._chain, token)

    def sample(self, context: DecodeContext, index: int, logits: NDArray[np.float32]) -> int:
        """Choose the next token and remember it.

        Args:
            context: Where the batch was decoded.
            index: The place in the batch of the stream's last token.
            logits: Shape (n_vocab,), of that token.

        Raises:
            EngineError: The logits are not finite, or the grammar allows nothing.
        """
        # NaN wins every maximum, so this finds it wherever it is. Single -inf are masks.
        if not np.isfinite(logits.max()):
            raise EngineError("The model's logits are not finite numbers.")
        if self._greedy:
            # What the chain would choose, without a list of all candidates.
            return int(logits.argmax())
        if self._grammar is None:
            return int(llama_cpp.llama_sampler_sample(self._chain, context.handle, index))
        # Testing the one token that would be chosen is far cheaper than testing all of them.
        token = self._choose(logits, self._chain)
        if not self._allows(token):
            token = self._choose(logits, self._grammar, self._chain)
            if not self._allows(token):
                raise GrammarExhaustedError("The grammar allows no token at this place.")
        llama_cpp.llama_sampler_accept(self._grammar, token)
        llama_cpp.llama_sampler_accept(self._chain, token)
        return token

    def free(self) -> None:
        """Free the samplers; a second call does nothing."""
        if self._chain:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None
        if self._grammar:
            llama_cpp.llama_sampler_free(self._grammar)
            self._grammar = None

    def _add(self, sampler: object) -> None:
        # The chain owns what is added to it.
        llama_cpp.llama_sampler_chain_add(self._chain, sampler)

    def _choose(self, logits: NDArray[np.float32], *samplers: object) -> int:
        candidates = np.zeros(self._n_vocab, dtype=_CANDIDATE)
        candidates["id"] = np.arange(self._n_vocab, dtype=np.int32)
        candidates["logit"] = logits
        array = _array(candidates)
        for sampler in samplers:
            llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def _allows(self, token: int) -> bool:
        candidate = np.zeros(1, dtype=_CANDIDATE)
        candidate["id"] = token
        array = _array(candidate)
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return bool(np.isfinite(array.data[0].logit))


def _array(candidates: NDArray[np.void]) -> llama_cpp.llama_token_data_array:
    return llama_cpp.llama_token_data_array(
        data=candidates.ctypes.data_as(llama_cpp.llama_token_data_p),
        size=len(candidates),
        selected=-1,
        sorted=False,
    )


def _grammar(model: LoadedModel, text: str) -> object:
    if len(text) > _LONGEST_GRAMMAR:
        raise InvalidParametersError(
            "grammar", f"grammar must be at most {_LONGEST_GRAMMAR} characters long."
        )
    depth = deepest = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > _DEEPEST_GRAMMAR:
        raise InvalidParametersError(
            "grammar", f"grammar must not nest groups more than {_DEEPEST_GRAMMAR} deep."
        )
    forwarder = start_library()
    forwarder.take_errors()
    sampler = llama_cpp.llama_sampler_init_grammar(model.vocab, text.encode(), b"root")
    if not sampler:
        details = "; ".join(forwarder.take_errors()) or "it needs a rule named root"
        raise InvalidParametersError("grammar", f"grammar is not valid GBNF: {details}.")
    return sampler

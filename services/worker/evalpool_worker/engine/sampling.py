"""Choosing the next token of one stream: a chain of llama.cpp's samplers, and its grammar."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from .base import SamplingParameters
from .context import DecodeContext
from .errors import EngineError, InvalidParametersError
from .grammars import Asking, Grammar
from .model import LoadedModel
from .token_candidates import as_array, new_candidates


class TokenSampler:
    """Samples the tokens of one stream.

    Attributes:
        grammar: What the text follows; None where it may be any.

    Args:
        model: Must outlive the sampler.
        parameters: Validated.
        prompt: The stream's prompt; the penalties look at its end.

    Raises:
        InvalidParametersError: The grammar can't be read, or takes too much.
    """

    def __init__(
        self, model: LoadedModel, parameters: SamplingParameters, prompt: Sequence[int]
    ) -> None:
        self._n_vocab = model.n_vocab
        self._choosing: Asking[int] | None = None
        self.grammar = (
            model.grammars.open(parameters.grammar, model.n_vocab) if parameters.grammar else None
        )
        self._chain = llama_cpp.llama_sampler_chain_init(
            llama_cpp.llama_sampler_chain_default_params()
        )
        penalises = (
            parameters.repeat_penalty != 1.0
            or parameters.frequency_penalty != 0.0
            or parameters.presence_penalty != 0.0
        ) and parameters.penalty_last_n > 0
        self._greedy = parameters.temperature == 0.0 and not penalises and self.grammar is None
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

    def sample(self, context: DecodeContext, index: int, logits: NDArray[np.float32]) -> int | None:
        """Choose the next token and remember it.

        Args:
            context: Where the batch was decoded.
            index: The place in the batch of the stream's last token.
            logits: Shape (n_vocab,), of that token.

        Returns:
            The token; None where the grammar is asked about it: `resume` goes on when it answers.

        Raises:
            InvalidParametersError: The grammar takes too much to follow, or allows nothing.
            EngineError: The logits are not finite, or the grammar is not followed in time.
        """
        likeliest = int(logits.argmax())
        # NaN wins every maximum, so this finds it wherever it is. Single -inf are masks.
        if not math.isfinite(logits[likeliest]):
            raise EngineError("The model's logits are not finite numbers.")
        if self._greedy:
            # What the chain would choose, without a list of all candidates.
            return likeliest
        if self.grammar is None:
            return int(llama_cpp.llama_sampler_sample(self._chain, context.handle, index))
        # The next batch overwrites them.
        self._choosing = self._choose_by(self.grammar, logits.copy())
        return self.resume()

    def resume(self) -> int | None:
        """Go on with the choice that waits for the grammar; see `sample`."""
        if self._choosing is None:
            raise AssertionError("no choice waits for a grammar")
        try:
            next(self._choosing)
        except StopIteration as chosen:
            self._choosing = None
            return int(chosen.value)
        return None

    def free(self) -> None:
        """Free the samplers; a second call does nothing."""
        self._choosing = None
        if self._chain:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None
        if self.grammar:
            self.grammar.close()
            self.grammar = None

    def _add(self, sampler: object) -> None:
        # The chain owns what is added to it.
        llama_cpp.llama_sampler_chain_add(self._chain, sampler)

    def _choose_by(self, grammar: Grammar, logits: NDArray[np.float32]) -> Asking[int]:
        # Asking about the one token that would be chosen is far cheaper than about all of them.
        token = self._choose(logits)
        if not (yield from grammar.accepts(token)):
            allowed = yield from grammar.allowed()
            token = self._choose(np.where(allowed, logits, -np.inf))
            if not (yield from grammar.accepts(token)):
                raise InvalidParametersError(
                    "grammar",
                    "grammar allows no token of this model after what it has allowed so far; let "
                    "every text that begins by it come to an end.",
                )
        llama_cpp.llama_sampler_accept(self._chain, token)
        return token

    def _choose(self, logits: NDArray[np.float32]) -> int:
        candidates = new_candidates(np.arange(self._n_vocab, dtype=np.int32), logits)
        array = as_array(candidates)
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

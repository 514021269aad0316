"""Text to tokens and back, the way that lm-evaluation-harness splits prompt and continuation."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

import llama_cpp

from .model import LoadedModel

# User-defined tokens are parsed always.
_PARSED_ON_DEMAND = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A prompt and one continuation as tokens.

    Attributes:
        tokens: All tokens, BOS included.
        prompt_tokens: How many of them are the prompt's; the others are the continuation's.
    """

    tokens: tuple[int, ...]
    prompt_tokens: int


class Tokeniser:
    """Encodes and decodes with one model's vocabulary. Safe to use from several threads.

    Attributes:
        bos: The token that every text begins with, None where the model's file wants none.
        bos_text: How BOS is written, such as `<bos>`; empty where the model has none.
        eos_text: How EOS is written.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._vocab = model.vocab
        # Of tokens that were asked about: between two steps of a generation every call counts.
        self._pieces: dict[int, bytes] = {}
        self._endings: dict[int, bool] = {}
        bos = int(llama_cpp.llama_vocab_bos(self._vocab))
        eos = int(llama_cpp.llama_vocab_eos(self._vocab))
        known_bos = bos if bos != llama_cpp.LLAMA_TOKEN_NULL else None
        self.bos = known_bos if llama_cpp.llama_vocab_get_add_bos(self._vocab) else None
        # What stands for an empty prompt: lm-evaluation-harness's `prefix_token_id`.
        self._prefix = known_bos if known_bos is not None else eos
        self._has_prefix = self._prefix != llama_cpp.LLAMA_TOKEN_NULL

        self.bos_text = self.written(bos)
        self.eos_text = self.written(eos)

    def encode(self, text: str, *more: str) -> tuple[int, ...]:
        """Tokens of `text`, special tokens parsed, BOS before it where the model wants one.

        A text that begins with BOS itself (a chat template's output) gets no second one. What comes
        in pieces is read piece by piece: no token reaches over a cut.
        """
        tokens = self._encode_plain(text)
        for piece in more:
            tokens += self._encode_plain(piece)
        if self.bos is not None and (not tokens or tokens[0] != self.bos):
            return (self.bos, *tokens)
        return tokens

    def encode_pair(self, prompt: str, continuation: str) -> EncodedPair:
        """Encode both together and cut where the prompt alone would end.

        Spaces at the end of the prompt go to the continuation first, since most vocabularies join
        a space with the word after it (`_encode_pair` in lm-evaluation-harness 0.4).

        Raises:
            ValueError: The prompt is empty and the model has neither BOS nor EOS to stand for it.
        """
        stripped = prompt.rstrip()
        continuation = prompt[len(stripped) :] + continuation
        if not stripped:
            if not self._has_prefix:
                raise ValueError("The prompt is empty and the model has no token to begin with.")
            tokens = self._encode_plain(continuation)
            if not tokens or tokens[0] != self._prefix:
                tokens = (self._prefix, *tokens)
            return EncodedPair(tokens, 1)
        return EncodedPair(self.encode(stripped + continuation), len(self.encode(stripped)))

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; empty for control tokens."""
        found = self._pieces.get(token)
        if found is None:
            found = self._pieces[token] = self._piece(token)
        return found

    def _piece(self, token: int) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            written = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if written >= 0:
                return buffer.raw[:written]
            size = -written

    def written(self, token: int) -> str:
        """How the vocabulary writes a token, such as `<|im_end|>`; empty for no token."""
        if token == llama_cpp.LLAMA_TOKEN_NULL:
            return ""
        text = llama_cpp.llama_vocab_get_text(self._vocab, token)
        return text.decode("utf-8", errors="replace") if text else ""

    def control_texts(self) -> Iterator[str]:
        """How the control tokens are written: those that are parsed in a text on demand alone."""
        for token in range(llama_cpp.llama_vocab_n_tokens(self._vocab)):
            if llama_cpp.llama_vocab_get_attr(self._vocab, token) & _PARSED_ON_DEMAND:
                yield self.written(token)

    def ends_generation(self, token: int) -> bool:
        """Whether the model says with this token that it has finished."""
        found = self._endings.get(token)
        if found is None:
            found = bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))
            self._endings[token] = found
        return found

    def _encode_plain(self, text: str) -> tuple[int, ...]:
        data = text.encode("utf-8")
        size = len(data) + 8
        while True:
            buffer = (llama_cpp.llama_token * size)()
            count = llama_cpp.llama_tokenize(
                self._vocab, data, len(data), buffer, size, False, True
            )
            if count >= 0:
                return tuple(buffer[:count])
            size = -count

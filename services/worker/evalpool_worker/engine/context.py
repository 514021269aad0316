"""A llama.cpp context with its batch, filled through numpy views; one thread's at a time."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from .errors import EngineError
from .model import LoadedModel
from .thread_choice import ThreadChoice


class NoRoomError(EngineError):
    """The batch finds no room in the KV cache; the cache is as it was before."""


class DecodeFailedError(EngineError):
    """llama.cpp could not compute the batch; the context must be rebuilt."""


@dataclass(frozen=True, slots=True)
class ContextShape:
    """How a context is laid out.

    Attributes:
        cells: Tokens that its KV cache holds, over all sequences.
        batch_tokens: Most tokens of one batch; the physical batch (`n_ubatch`) is the same.
        chunk_tokens: Most tokens of one prompt in a batch, and of all where streams wait for their
            next token. Default: a whole batch.
        sequences: Most sequences at the same time, up to 256.
        outputs: Most tokens of one batch whose logits are kept; bounds the memory for them.
            llama.cpp ends the process when a batch wants more, or when it is below `sequences`.
        threads: Threads that compute, fewer while others want the cores.
        flash_attention: Fused attention: faster, and less memory for long contexts.
        fewest_tokens: A batch of fewer is filled up with tokens that nobody reads.
        spare_sequences: Sequences beyond `sequences`, with ids after theirs. What fills a batch up
            is in the last of them, and is forgotten with the batch.
    """

    cells: int
    batch_tokens: int
    sequences: int
    outputs: int
    threads: int
    flash_attention: bool = False
    fewest_tokens: int = 1
    spare_sequences: int = 0
    chunk_tokens: int | None = None

    def __post_init__(self) -> None:
        """Refuse what llama.cpp would end the process for."""
        most = llama_cpp.llama_max_parallel_sequences()
        if not 1 <= self.sequences <= min(self.outputs, most - self.spare_sequences):
            raise ValueError("sequences must be from 1 to outputs, with the spare ones at most 256")
        if not 1 <= self.outputs <= self.batch_tokens <= self.cells:
            raise ValueError("outputs <= batch_tokens <= cells must hold, from 1 on")
        if self.threads < 1:
            raise ValueError("threads must be at least 1")
        if not 1 <= self.fewest_tokens <= self.batch_tokens:
            raise ValueError("fewest_tokens must be from 1 to batch_tokens")
        if self.spare_sequences < (1 if self.fewest_tokens > 1 else 0):
            raise ValueError("spare_sequences must be at least 1 where batches are filled up")


class DecodeContext:
    """Owns a `llama_context` with a unified KV cache and a `llama_batch`.

    Raises:
        EngineError: There is not enough memory for the context.
    """

    def __init__(self, model: LoadedModel, shape: ContextShape) -> None:
        self.shape = shape
        self._n_vocab = model.n_vocab
        parameters = llama_cpp.llama_context_default_params()
        # The filling has cells beyond those of the shape.
        parameters.n_ctx = shape.cells + shape.fewest_tokens - 1
        parameters.n_batch = shape.batch_tokens
        parameters.n_ubatch = shape.batch_tokens
        parameters.n_seq_max = shape.sequences + shape.spare_sequences
        parameters.n_outputs_max = shape.outputs + shape.spare_sequences
        parameters.n_threads = shape.threads
        parameters.n_threads_batch = shape.threads
        # Sequences share cells only in one buffer for all of them.
        parameters.kv_unified = True
        parameters.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
            if shape.flash_attention
            else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        parameters.no_perf = True
        handle = llama_cpp.llama_init_from_model(model.handle, parameters)
        if not handle:
            raise EngineError(
                f"A context of {shape.cells} tokens can't be made; there may be too little memory."
            )
        self._handle = handle
        self._filling = shape.sequences + shape.spare_sequences - 1
        self._filled = 0
        self._logits_address = 0
        self._logits: NDArray[np.float32] = np.empty((0, self._n_vocab), dtype=np.float32)
        self._threads = shape.threads
        self._choice = ThreadChoice(shape.threads)
        self._memory = llama_cpp.llama_get_memory(handle)
        batch = llama_cpp.llama_batch_init(shape.batch_tokens, 0, shape.sequences)
        self._batch = batch
        size = (shape.batch_tokens,)
        self._tokens: NDArray[np.int32] = np.ctypeslib.as_array(batch.token, shape=size)
        self._positions: NDArray[np.int32] = np.ctypeslib.as_array(batch.pos, shape=size)
        self._sequence_counts: NDArray[np.int32] = np.ctypeslib.as_array(batch.n_seq_id, shape=size)
        self._wants_logits: NDArray[np.int8] = np.ctypeslib.as_array(batch.logits, shape=size)
        # seq_id is an array of pointers to one array a token; one view for each.
        self._sequence_ids: list[NDArray[np.int32]] = [
            np.ctypeslib.as_array(batch.seq_id[i], shape=(shape.sequences,))
            for i in range(shape.batch_tokens)
        ]

    @property
    def handle(self) -> int:
        """The raw context, for samplers."""
        return self._handle  # type: ignore[no-any-return]

    def fill(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[Sequence[int]],
        wants_logits: Sequence[bool],
    ) -> None:
        """Lay out the next batch; all four have one item a token."""
        count = len(tokens)
        if count > self.shape.batch_tokens or sum(wants_logits) > self.shape.outputs:
            raise ValueError("The batch is larger than the context's shape allows.")
        self._tokens[:count] = tokens
        self._positions[:count] = positions
        self._wants_logits[:count] = wants_logits
        for i, ids in enumerate(sequences):
            self._sequence_counts[i] = len(ids)
            self._sequence_ids[i][: len(ids)] = ids
        self._batch.n_tokens = max(count, self.shape.fewest_tokens)
        self._filled = self._batch.n_tokens - count
        if self._filled:
            self._tokens[count : count + self._filled] = 0
            self._positions[count : count + self._filled] = range(self._filled)
            self._wants_logits[count : count + self._filled] = 0
            for i in range(count, count + self._filled):
                self._sequence_counts[i] = 1
                self._sequence_ids[i][0] = self._filling

    def limit_threads(self, most: int) -> None:
        """Compute the next batches with at most so many threads."""
        self._choice.limit(most)

    def decode(self) -> None:
        """Compute the batch.

        Raises:
            NoRoomError: The KV cache has no room for it; nothing changed.
            DecodeFailedError: Anything else; rebuild the context.
        """
        threads = self._choice.threads
        if threads != self._threads:
            llama_cpp.llama_set_n_threads(self._handle, threads, threads)
            self._threads = threads
        wall, processor = time.monotonic(), time.thread_time()
        code = llama_cpp.llama_decode(self._handle, self._batch)
        now = time.monotonic()
        self._choice.observe(threads, now - wall, time.thread_time() - processor, now)
        if code == 1:
            raise NoRoomError(f"No room for {self._batch.n_tokens} tokens in the KV cache.")
        if code != 0:
            raise DecodeFailedError(f"llama.cpp could not compute a batch (code {code}).")
        if self._filled:
            self.forget(self._filling)

    def logits(self, rows: int) -> NDArray[np.float32]:
        """The logits of the batch's tokens that wanted them, in the batch's order.

        Returns:
            A view of shape (rows, n_vocab) into llama.cpp's memory, valid until the next decode.
        """
        pointer = llama_cpp.llama_get_logits(self._handle)
        if not pointer:
            raise DecodeFailedError("llama.cpp gave no logits for the batch.")
        address = ctypes.addressof(pointer.contents)
        if self._logits_address != address:
            # They mostly stay where they are, and a view costs as much as choosing a token.
            shape = (self.shape.outputs, self._n_vocab)
            self._logits = np.ctypeslib.as_array(pointer, shape=shape)
            self._logits_address = address
        return self._logits[:rows]

    def forget_all(self) -> None:
        """Empty the KV cache."""
        llama_cpp.llama_memory_clear(self._memory, False)

    def forget(self, sequence: int, start: int = 0) -> None:
        """Free the cells of one sequence, from a position on."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def share(self, source: int, sequence: int, tokens: int) -> None:
        """Let a sequence begin with the first tokens of another, without computing them again."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, sequence, 0, tokens)

    def free(self) -> None:
        """Free the context and its batch; a second call does nothing."""
        if self._handle:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._handle)
            self._handle = None
            self._memory = None

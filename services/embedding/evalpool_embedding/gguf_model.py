"""Embedding models in the form of GGUF, by llama.cpp.

The pooling is the file's own: the mean, the first or the last token. A model that was made to
generate text says none, and its hidden states are averaged, as llama.cpp's own server does it.
llama-cpp-python is loaded with the first such model: nothing else here needs it.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalpool.models import InvalidGguf, read_gguf, sha256_of
from evalpool_embedding.model import (
    MAX_CONTEXT_LENGTH,
    MAX_THREADS,
    InvalidModel,
    Vectors,
    digest_of,
    plan_batches,
    scaled,
)

BATCH_TEXTS = 32
BATCH_TOKENS = 512

_logger = logging.getLogger("evalpool.embedding.llama_cpp")
_library_lock = threading.Lock()
# llama.cpp keeps only the address of what its log goes to.
_log_callbacks: list[object] = []
_GGML_LOG_LEVEL_ERROR = 4


def gguf_digest(path: Path) -> str:
    """The digest of all that a GGUF file's vectors depend on. Reads the whole file.

    Raises:
        InvalidModel: It is no GGUF file.
    """
    try:
        read_gguf(path)
    except InvalidGguf as error:
        raise InvalidModel(f"{path} is no GGUF model: {error}; see --model") from error
    return digest_of(gguf=sha256_of(path), context_length=MAX_CONTEXT_LENGTH)


class GgufModel:
    """A model that llama.cpp computes.

    Attributes:
        name: The file's name.
        digest: That of all that its vectors depend on.
        dimensions: Numbers in a vector.
        context_length: The tokens of a text that it looks at.
    """

    def __init__(self, path: Path, digest: str, *, threads: int = MAX_THREADS) -> None:
        """Load a model.

        Args:
            path: The GGUF file.
            digest: As `gguf_digest` gives it.
            threads: Threads that one batch is computed by, at most 2.

        Raises:
            InvalidModel: llama.cpp is not installed, or cannot make vectors with this file.
        """
        self.name = path.name
        self.digest = digest
        self._llama = llama = _library()
        # A context computes one batch at a time.
        self._lock = threading.Lock()
        self._model = llama.llama_model_load_from_file(
            str(path).encode(), llama.llama_model_default_params()
        )
        if not self._model:
            raise InvalidModel(f"{path.name} cannot be loaded by llama.cpp; see --model")
        self._context: Any = None
        self._batch: Any = None
        try:
            self._check()
            self._vocab = llama.llama_model_get_vocab(self._model)
            self.dimensions = int(llama.llama_model_n_embd_out(self._model))
            self.context_length = min(
                MAX_CONTEXT_LENGTH, int(llama.llama_model_n_ctx_train(self._model))
            )
            # An encoder sees a text whole: a batch has room for the longest.
            self._batch_tokens = max(BATCH_TOKENS, self.context_length)
            self._context = self._open(min(threads, MAX_THREADS))
            self._batch = batch = llama.llama_batch_init(self._batch_tokens, 0, 1)
            size = (self._batch_tokens,)
            self._tokens = np.ctypeslib.as_array(batch.token, shape=size)
            self._positions = np.ctypeslib.as_array(batch.pos, shape=size)
            # Each token is of one text, and all of them count for its vector.
            np.ctypeslib.as_array(batch.n_seq_id, shape=size)[:] = 1
            np.ctypeslib.as_array(batch.logits, shape=size)[:] = 1
        except BaseException:
            self.close()
            raise

    def encode(self, texts: Sequence[str]) -> Vectors:
        """The vectors of texts, one a row, shape (texts, dimensions)."""
        tokens = [self._tokenise(text) for text in texts]
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for places in plan_batches(
            [len(each) for each in tokens], max_texts=BATCH_TEXTS, max_tokens=self._batch_tokens
        ):
            with self._lock:
                vectors[places] = scaled(self._encode_batch([tokens[place] for place in places]))
        return vectors

    def close(self) -> None:
        """Give its memory back; a second call does nothing."""
        with self._lock:
            if self._batch is not None:
                self._llama.llama_batch_free(self._batch)
                self._batch = None
            if self._context:
                self._llama.llama_free(self._context)
                self._context = None
            if self._model:
                self._llama.llama_model_free(self._model)
                self._model = None

    def _check(self) -> None:
        llama = self._llama
        vocab = llama.llama_model_get_vocab(self._model)
        if not vocab or llama.llama_vocab_type(vocab) == llama.LLAMA_VOCAB_TYPE_NONE:
            raise InvalidModel(f"{self.name} holds no vocabulary; see --model")
        if llama.llama_model_has_encoder(self._model) and llama.llama_model_has_decoder(
            self._model
        ):
            raise InvalidModel(
                f"{self.name} translates one text into another (it has an encoder and a decoder); "
                "use an embedding model, and see --model"
            )
        if llama.llama_model_n_ctx_train(self._model) < 1:
            raise InvalidModel(f"{self.name} names no context length; see --model")

    def _open(self, threads: int) -> Any:
        llama = self._llama
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = self._batch_tokens
        parameters.n_seq_max = BATCH_TEXTS
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.embeddings = True
        parameters.kv_unified = True
        parameters.no_perf = True
        if self._file_pools_by() == llama.LLAMA_POOLING_TYPE_NONE:
            parameters.pooling_type = llama.LLAMA_POOLING_TYPE_MEAN
        context = llama.llama_init_from_model(self._model, parameters)
        if not context:
            raise InvalidModel(
                f"a context of {self._batch_tokens} tokens cannot be made for {self.name}; there "
                "may be too little memory"
            )
        if llama.llama_pooling_type(context) == llama.LLAMA_POOLING_TYPE_RANK:
            llama.llama_free(context)
            raise InvalidModel(
                f"{self.name} ranks pairs of texts and makes no vectors; use an embedding model, "
                "and see --model"
            )
        return context

    def _file_pools_by(self) -> int:
        """How the file says that hidden states become a vector; NONE where it does not say."""
        architecture = self._metadata("general.architecture")
        stated = self._metadata(f"{architecture}.pooling_type")
        if not stated:
            return int(self._llama.LLAMA_POOLING_TYPE_NONE)
        return int(stated)

    def _metadata(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(256)
        self._llama.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", errors="replace")

    def _tokenise(self, text: str) -> list[int]:
        """A text's tokens with those that begin and end it, cut at the context length."""
        llama, data = self._llama, text.encode()
        size = len(data) + 8
        while True:
            buffer = (llama.llama_token * size)()
            # What looks like a control token in a text is text.
            count = llama.llama_tokenize(self._vocab, data, len(data), buffer, size, True, False)
            if count >= 0:
                break
            size = -count
        tokens = list(buffer[:count]) or [int(llama.llama_vocab_eos(self._vocab))]
        if len(tokens) > self.context_length:
            ends = {llama.llama_vocab_eos(self._vocab), llama.llama_vocab_sep(self._vocab)}
            last = tokens[-1:] if tokens[-1] in ends else []
            tokens = tokens[: self.context_length - len(last)] + last
        return tokens

    def _encode_batch(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        llama, batch = self._llama, self._batch
        if batch is None or self._context is None:
            raise RuntimeError("the model is closed")
        begin = 0
        for sequence, tokens in enumerate(texts):
            end = begin + len(tokens)
            self._tokens[begin:end] = tokens
            self._positions[begin:end] = range(len(tokens))
            for place in range(begin, end):
                batch.seq_id[place][0] = sequence
            begin = end
        batch.n_tokens = begin
        memory = llama.llama_get_memory(self._context)
        if memory:  # an encoder keeps nothing
            llama.llama_memory_clear(memory, False)
        code = llama.llama_decode(self._context, batch)
        if code != 0:
            raise RuntimeError(f"llama.cpp could not compute a batch (code {code})")
        rows = np.empty((len(texts), self.dimensions), np.float32)
        for sequence in range(len(texts)):
            row = llama.llama_get_embeddings_seq(self._context, sequence)
            if not row:
                raise RuntimeError("llama.cpp gave no vector for a text")
            rows[sequence] = np.ctypeslib.as_array(row, shape=(self.dimensions,))
        return rows


def _library() -> ModuleType:
    """llama.cpp's own functions, started once a process, with its log sent to `logging`."""
    with _library_lock:
        try:
            llama = importlib.import_module("llama_cpp.llama_cpp")
        except ImportError as error:
            raise InvalidModel(
                "a GGUF model needs llama-cpp-python; install it with `pip install "
                "'evalpool[embedding-gguf]'`, or see --model"
            ) from error
        if not _log_callbacks:

            def receive(level: int, text: bytes | None, _user_data: object) -> None:
                line = (text or b"").decode(errors="replace").strip()
                if line and line != ".":
                    severity = logging.ERROR if level == _GGML_LOG_LEVEL_ERROR else logging.DEBUG
                    _logger.log(severity, "%s", line)

            callback = llama.llama_log_callback(receive)
            _log_callbacks.append(callback)
            llama.llama_log_set(callback, ctypes.c_void_p(0))
            llama.llama_backend_init()
        return llama

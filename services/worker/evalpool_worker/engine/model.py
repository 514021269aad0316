"""A loaded GGUF: its weights, its vocabulary, what it says about itself."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import llama_cpp

from .errors import ModelLoadError
from .grammars import Grammars
from .library import start_library

# Of the 16-bit floats that keys and values are cached as.
_CACHED_BYTES = 2


class LoadedModel:
    """Owns a `llama_model`. Contexts made from it must be freed before it is.

    Args:
        path: A GGUF file.
        progress: Called from the loading thread with the loaded share, 0 to 1; loading stops
            when it returns False.
        gpu_layers: Layers for a GPU to compute, where the build has one; -1 for all.

    Attributes:
        handle: The `llama_model`, None once it is freed.
        vocab: Its `llama_vocab`.
        grammars: Follows the grammars of streams.
        n_vocab: Tokens of the vocabulary.
        n_ctx_train: Context length that it was trained with, in tokens, at least 1.
        gpu_layers: Layers that a GPU computes, the output as one of them; 0 without a GPU.
        n_head: Attention heads of a layer.
        cache_bytes_a_token: Bytes that a KV cache of 16-bit floats takes for each of its tokens.
        shares_prefixes: Whether sequences can share a part of their memory.

    Raises:
        ModelLoadError: The file can't be loaded, or holds a model that can't generate text.
    """

    def __init__(
        self,
        path: Path,
        progress: Callable[[float], bool] | None = None,
        gpu_layers: int = -1,
    ) -> None:
        forwarder = start_library()
        forwarder.take_errors()
        parameters = llama_cpp.llama_model_default_params()
        # Held by this frame until loading is over: llama.cpp keeps only the address.
        callback = llama_cpp.llama_progress_callback(
            lambda share, _data: True if progress is None else bool(progress(share))
        )
        parameters.progress_callback = callback
        parameters.n_gpu_layers = gpu_layers
        no_devices = (ctypes.c_void_p * 1)(None)
        if gpu_layers == 0:
            # Without this a GPU would still compute large batches, and keep the KV cache.
            parameters.devices = ctypes.addressof(no_devices)
        handle = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not handle:
            details = "; ".join(forwarder.take_errors()) or "llama.cpp gave no reason"
            raise ModelLoadError(f"{path.name} can't be loaded as a GGUF model: {details}.")
        self.handle = handle
        self.grammars = Grammars(path)
        try:
            if llama_cpp.llama_model_has_encoder(handle) or not llama_cpp.llama_model_has_decoder(
                handle
            ):
                raise ModelLoadError(
                    f"{path.name} holds an encoder ({self.description}); "
                    "only decoder models can score and generate."
                )
            if llama_cpp.llama_model_is_diffusion(handle):
                raise ModelLoadError(
                    f"{path.name} holds a diffusion model ({self.description}); "
                    "only autoregressive models can score and generate."
                )
            vocab = llama_cpp.llama_model_get_vocab(handle)
            if not vocab or llama_cpp.llama_vocab_type(vocab) == llama_cpp.LLAMA_VOCAB_TYPE_NONE:
                raise ModelLoadError(f"{path.name} holds no vocabulary.")
            if llama_cpp.llama_model_n_ctx_train(handle) < 1:
                raise ModelLoadError(f"{path.name} names no context length that could be used.")
        except ModelLoadError:
            self.free()
            raise
        self.vocab = vocab
        self.n_vocab = int(llama_cpp.llama_vocab_n_tokens(vocab))
        self.n_ctx_train = int(llama_cpp.llama_model_n_ctx_train(handle))
        # The output counts as one more.
        layers = int(llama_cpp.llama_model_n_layer(handle)) + 1
        self.gpu_layers = (
            min(layers, gpu_layers if gpu_layers >= 0 else layers)
            if llama_cpp.llama_supports_gpu_offload()
            else 0
        )
        self.n_head = max(1, int(llama_cpp.llama_model_n_head(handle)))
        self.cache_bytes_a_token = self._cache_bytes_a_token()
        # Such a memory holds one state a sequence, which no two sequences can share a part of.
        self.shares_prefixes = not (
            llama_cpp.llama_model_is_recurrent(handle) or llama_cpp.llama_model_is_hybrid(handle)
        )

    @property
    def description(self) -> str:
        """Architecture, size and quantisation, such as `llama 134M Q4_1`."""
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", errors="replace")

    @property
    def quantisation(self) -> str:
        """Of most tensors, such as `Q4_1`."""
        name = llama_cpp.llama_ftype_name(llama_cpp.llama_model_ftype(self.handle))
        return name.decode() if name else "unknown"

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return int(llama_cpp.llama_model_n_params(self.handle))

    @property
    def bytes(self) -> int:
        """Size of all tensors in bytes."""
        return int(llama_cpp.llama_model_size(self.handle))

    @property
    def chat_template(self) -> str | None:
        """The Jinja template in the file, None where there is none."""
        template = llama_cpp.llama_model_chat_template(self.handle, None)
        return template.decode("utf-8", errors="replace") if template else None

    def _cache_bytes_a_token(self) -> int:
        head = int(llama_cpp.llama_model_n_embd(self.handle)) // self.n_head
        architecture = self._metadata("general.architecture")
        key, value = (
            int(self._metadata(f"{architecture}.attention.{name}_length") or head)
            for name in ("key", "value")
        )
        layers = int(llama_cpp.llama_model_n_layer(self.handle))
        heads = int(llama_cpp.llama_model_n_head_kv(self.handle))
        return layers * heads * (key + value) * _CACHED_BYTES

    def _metadata(self, key: str) -> str:
        """A value in the file's header; empty where it has none."""
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", errors="replace")

    def free(self) -> None:
        """Free the weights; a second call does nothing."""
        self.grammars.close()
        if self.handle:
            llama_cpp.llama_model_free(self.handle)
            self.handle = None

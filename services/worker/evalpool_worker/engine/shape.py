"""How many contexts, threads and tokens a model is run with on this machine."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import llama_cpp

from .context import ContextShape
from .model import LoadedModel

# Most bytes of logits that one batch keeps. A large vocabulary (262,144 words are 1 MiB a
# token) would otherwise take more memory than the model.
_LOGITS_BYTES = 32 * 2**20
_FEWEST_OUTPUTS = 32
_MOST_SEQUENCES = 64

# Below this many tokens a batch llama.cpp's fused attention on the processor adds in 16 bits, not
# in 32 (ggml_fa_tile_config::Q of ggml-cpu): the same question's sum of log-probabilities then
# moves by 0.20 on average from a batch alone to a full one, and by 0.06 otherwise (SmolLM2 Q8_0).
_FUSED_TOKENS = 64

# Most bytes of attention scores that one batch of a long context takes, and its fewest tokens.
_ATTENTION_BYTES = 128 * 2**20
_SMALLEST_BATCH = 16

# Weights for each thread of a scoring context: a batch of 256 tokens then takes about a second
# or two on one core, which is how long a cancelled call may keep its context.
_WEIGHTS_A_THREAD = 500_000_000


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What a worker may choose; None means measured or derived.

    Attributes:
        threads: Threads to compute with, in all. Default: the cores that this process may use.
        gpu_layers: Layers of a model for a GPU to compute, where the build has one; -1 for all.
        score_contexts: Contexts that score side by side. Default: as many as keep a batch short;
            one single-threaded context a core for small models.
        score_batch_tokens: Tokens of a scoring batch. More are not faster, and a call that is
            cancelled keeps its context for one batch.
        score_context_tokens: Tokens of a scoring context, at most what the model was trained with.
            A question that is longer gets a context of its own, as long as it is at it.
        generate_slots: Streams at the same time, as far as llama.cpp takes as many.
        generate_context_tokens: Tokens that all streams hold together. A stream that becomes longer
            gets a longer context, as long as there are streams.
        generate_chunk_tokens: Most tokens of one prompt in a generating batch, and of all prompts
            where streams wait for their next token. Where none does, a batch has twice as many, so
            that streams which begin together go on together.
        generate_chunk_seconds: A stream's text is handed over at most this often, but for the first
            and the last: some tokens in a message cost the cores that compute the next ones less.
    """

    threads: int | None = None
    gpu_layers: int = -1
    score_contexts: int | None = None
    score_batch_tokens: int = 256
    score_context_tokens: int = 2048
    generate_slots: int = 16
    generate_context_tokens: int = 4096
    generate_chunk_tokens: int = 256
    generate_chunk_seconds: float = 0.05


@dataclass(frozen=True, slots=True)
class EngineShape:
    """What the settings come to for one model.

    Attributes:
        score_contexts: Contexts that score side by side.
        score: The shape of each.
        generate: The shape of the context that generates.
    """

    score_contexts: int
    score: ContextShape
    generate: ContextShape


class GrowingShape:
    """A shape of contexts that can be made longer, up to what the model was trained with.

    Args:
        usual: The shape for what is as long as usual.
        model: Says how long and how wide it is.

    Attributes:
        usual: Likewise.
        most: Tokens of the longest context.
    """

    def __init__(self, usual: ContextShape, model: LoadedModel) -> None:
        self.usual = usual
        self.most = max(usual.cells, model.n_ctx_train)
        self._heads = model.n_head

    def holding(self, tokens: int) -> ContextShape:
        """The usual shape, or one doubled until it holds so many tokens, at most `most`."""
        cells = self.usual.cells
        if tokens <= cells:
            return self.usual
        while cells < tokens:
            cells *= 2
        cells = min(cells, self.most)
        batch = self.usual.batch_tokens
        if not self.usual.flash_attention:
            # Every head of every token of the batch has a score for every cell, 4 bytes each.
            fitting = _ATTENTION_BYTES // (4 * cells * self._heads)
            batch = max(_SMALLEST_BATCH, min(batch, 1 << max(0, fitting.bit_length() - 1)))
        outputs = min(self.usual.outputs, batch)
        return replace(
            self.usual,
            cells=cells,
            batch_tokens=batch,
            outputs=outputs,
            sequences=min(self.usual.sequences, outputs),
            fewest_tokens=min(self.usual.fewest_tokens, batch),
        )


def shape_for(model: LoadedModel, settings: EngineSettings) -> EngineShape:
    """Derive the shape for a model."""
    cores = settings.threads or available_cores()
    contexts = settings.score_contexts
    if contexts is None:
        contexts = max(1, cores // max(1, math.ceil(model.parameters / _WEIGHTS_A_THREAD)))
    contexts = min(contexts, cores)
    outputs = max(_FEWEST_OUTPUTS, _LOGITS_BYTES // (4 * model.n_vocab))
    score_cells = min(settings.score_context_tokens, model.n_ctx_train)
    score_batch = min(settings.score_batch_tokens, score_cells)
    score_outputs = min(score_batch, outputs)
    chunk = min(settings.generate_chunk_tokens, settings.generate_context_tokens)
    generate_batch = min(2 * chunk, settings.generate_context_tokens)
    most_slots = llama_cpp.llama_max_parallel_sequences() - 1
    slots = min(settings.generate_slots, chunk, most_slots)
    return EngineShape(
        score_contexts=contexts,
        score=ContextShape(
            cells=score_cells,
            batch_tokens=score_batch,
            sequences=min(_MOST_SEQUENCES, score_outputs),
            outputs=score_outputs,
            threads=max(1, cores // contexts),
            flash_attention=True,
            fewest_tokens=min(_FUSED_TOKENS, score_batch),
            # One for what questions begin with, one for filling.
            spare_sequences=2,
        ),
        generate=ContextShape(
            cells=settings.generate_context_tokens,
            batch_tokens=generate_batch,
            sequences=slots,
            outputs=slots,
            threads=cores,
            flash_attention=True,
            # For what the streams to come may begin with.
            spare_sequences=1,
            chunk_tokens=chunk,
        ),
    )


def available_cores(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: its affinity, and the quota of its container.

    llama.cpp's threads spin at barriers, so more threads than cores is far slower than fewer.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = cgroup.read_text().split()
    except (OSError, ValueError):
        return cores
    if quota == "max":
        return cores
    return max(1, min(cores, int(quota) // int(period)))

"""What an engine says of itself: its model, how it runs it, and what it has to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What computed a result; recorded with every run.

    Attributes:
        engine: The engine's name, `llama_cpp`, `openai` or `fake`.
        engine_build: Versions and commit, and the processor features that the build uses.
        model_digest: SHA-256 of the model file as the caller gave it.
        model_description: What the file says about itself (`llama 134M Q4_1`).
        quantisation: Of most of the file's tensors (`Q4_1`).
        parameters: Number of weights.
        model_bytes: Size of the tensors in bytes.
        n_vocab: Tokens of the vocabulary.
        n_ctx_train: Context length that the model was trained with, in tokens.
        gpu_layers: Layers of the model that a GPU computes; 0 where the processor computes all.
        score_contexts: Contexts that score at the same time.
        score_threads: Threads of each of them, fewer while others want the cores; the number does
            not change what is computed.
        score_batch_tokens: Most tokens of one scoring batch; `n_batch` and `n_ubatch` are this.
        score_context_tokens: Tokens of a scoring context; a longer question gets one of its own.
        generate_threads: Threads of the context that generates, likewise.
        generate_batch_tokens: Most tokens of one generating batch (`n_batch`, `n_ubatch`).
        generate_context_tokens: Tokens that all streams hold together, unless one is longer.
        generate_slots: Streams at the same time.
        vouched: The engine can't prove the digest; the operator vouches for it. What it does not
            know of the model is 0 or empty then.
    """

    engine: str
    engine_build: str
    model_digest: str
    model_description: str
    quantisation: str
    parameters: int
    model_bytes: int
    n_vocab: int
    n_ctx_train: int
    gpu_layers: int
    score_contexts: int
    score_threads: int
    score_batch_tokens: int
    score_context_tokens: int
    generate_threads: int
    generate_batch_tokens: int
    generate_context_tokens: int
    generate_slots: int
    vouched: bool = False


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What an engine has to do at this moment; a reading for metrics, not for decisions.

    Attributes:
        questions_waiting: Questions that no batch has taken yet.
        questions_running: Questions in batches.
        streams_waiting: Generations that have no slot yet.
        streams_running: Generations in slots.
        computed_tokens: Tokens computed for questions since the model was loaded.
        prompt_tokens: Tokens of prompts computed for generations since then.
        completion_tokens: Tokens sampled since then.
        kv_cells: Tokens that the KV cache of the streams holds; 0 where it is a server's.
        kv_used_cells: Of those, what streams in slots take, counted as where room is made for them:
            a token that several share counts for each, and what is kept for others to come is free.
    """

    questions_waiting: int
    questions_running: int
    streams_waiting: int
    streams_running: int
    computed_tokens: int
    prompt_tokens: int
    completion_tokens: int
    kv_cells: int
    kv_used_cells: int


def total_load(loads: Iterable[EngineLoad]) -> EngineLoad:
    """What several engines have to do together."""
    each = [astuple(load) for load in loads]
    names = [field.name for field in fields(EngineLoad)]
    return EngineLoad(**{name: sum(load[at] for load in each) for at, name in enumerate(names)})

"""What streams begin with alike is computed once, and changes no text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from evalpool_worker.engine.base import GenerationEnd, SamplingParameters
from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from evalpool_worker.engine.shape import EngineSettings
from tests.worker.engine.calls import collect

SYSTEM = "You are a patient teacher who explains every step to children of ten years. " * 8
GREEDY = SamplingParameters(max_tokens=12, temperature=0.0)


@pytest.fixture
async def engine(smollm2_path: Path) -> AsyncIterator[LlamaCppEngine]:
    """With small batches, so that a prompt is several of them."""
    made = LlamaCppEngine(
        EngineSettings(threads=1, generate_context_tokens=1024, generate_chunk_tokens=32)
    )
    await made.load(smollm2_path, "digest")
    yield made
    await made.close()


async def prompts_computed(engine: LlamaCppEngine, *prompts: str) -> tuple[int, list[str]]:
    """Prompt tokens that streams side by side computed, and their texts."""
    before = engine.load_now.prompt_tokens
    ended = await asyncio.gather(*(collect(engine, prompt, GREEDY) for prompt in prompts))
    return engine.load_now.prompt_tokens - before, [text for text, _ in ended]


async def test_streams_side_by_side_compute_a_system_prompt_once(engine: LlamaCppEngine) -> None:
    prompts = [f"{SYSTEM}\nQuestion {number}: why?" for number in range(6)]
    # Another beginning, which keeps nothing that these could use.
    await prompts_computed(engine, "Hello")
    alone, _ = await prompts_computed(engine, prompts[0].replace("teacher", "father"))
    together, texts = await prompts_computed(engine, *prompts)
    assert together < 2 * alone
    assert all(texts)


async def test_a_prompt_like_the_last_one_is_not_computed_again_and_says_the_same(
    engine: LlamaCppEngine,
) -> None:
    prompt = f"{SYSTEM}\nQuestion: why is the sky blue?"
    text, first = await collect(engine, prompt, GREEDY)
    same, again = await collect(engine, prompt, GREEDY)
    assert same == text
    assert first.shared_tokens == 0
    assert first.prompt_tokens == again.prompt_tokens
    assert again.shared_tokens > first.prompt_tokens / 2
    assert again.computed_tokens == first.computed_tokens - again.shared_tokens


async def test_what_is_kept_gives_way_to_streams_that_need_the_room(
    smollm2_path: Path,
) -> None:
    engine = LlamaCppEngine(
        EngineSettings(threads=1, generate_context_tokens=256, generate_chunk_tokens=32)
    )
    await engine.load(smollm2_path, "digest")
    await collect(engine, SYSTEM, GREEDY)
    ends = await asyncio.gather(
        *(collect(engine, f"{number} " * 60, GREEDY) for number in range(1, 4))
    )
    for _, end in ends:
        assert isinstance(end, GenerationEnd)
        assert end.completion_tokens > 0
        assert not end.message
    await engine.close()

"""The engine `openai` against llama-cpp-python's own server with a real model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from evalpool_worker.engine.base import (
    ChatMessage,
    FinishReason,
    GenerationChunk,
    GenerationEnd,
    Prompt,
    SamplingParameters,
)
from evalpool_worker.engine.errors import EngineError, ModelLoadError
from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from evalpool_worker.engine.openai import OpenAIEngine
from tests.worker.engine.llama_cpp_server import LlamaCppServer

GREEDY = SamplingParameters(max_tokens=24, temperature=0.0)

pytestmark = pytest.mark.parametrize("engine_name", ["openai"], indirect=True)


async def generate(
    engine: OpenAIEngine | LlamaCppEngine, prompt: Prompt, parameters: SamplingParameters
) -> tuple[str, GenerationEnd]:
    *chunks, end = [event async for event in engine.generate(prompt, parameters)]
    assert isinstance(end, GenerationEnd)
    return "".join(c.text for c in chunks if isinstance(c, GenerationChunk)), end


async def test_a_text_has_as_many_tokens_as_were_asked_for(engine: OpenAIEngine) -> None:
    text, end = await generate(engine, "Once upon a time", replace(GREEDY, max_tokens=5))
    assert text
    assert (end.completion_tokens, end.finish_reason) == (5, FinishReason.LENGTH)


async def test_it_says_what_the_model_says_in_this_process(
    engine: OpenAIEngine, llama: LlamaCppEngine
) -> None:
    few = replace(GREEDY, max_tokens=4)
    theirs, _ = await generate(engine, "The capital of France is", few)
    ours, _ = await generate(llama, "The capital of France is", few)
    assert theirs == ours
    assert "Paris" in theirs


async def test_messages_are_answered_by_the_servers_template(engine: OpenAIEngine) -> None:
    messages = (ChatMessage("system", "Be brief."), ChatMessage("user", "Name a colour."))
    text, end = await generate(engine, messages, GREEDY)
    assert text.strip()
    assert "<|im_" not in text
    assert end.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)


async def test_characters_of_several_tokens_come_whole(engine: OpenAIEngine) -> None:
    emoji = 'root ::= ("🙂" | "東" | "é" | "🎻")+'
    parameters = SamplingParameters(max_tokens=40, temperature=1.0, seed=1, grammar=emoji)
    text, _ = await generate(engine, "🙂 東 é 🎻", parameters)
    assert text
    assert set(text) <= set("🙂東é🎻")


async def test_what_the_server_cannot_do_is_an_error_and_the_next_goes_on(
    engine: OpenAIEngine,
) -> None:
    # It finds out only after it has begun to answer, and breaks off.
    with pytest.raises(EngineError):
        await generate(engine, "word " * 3000, GREEDY)
    text, _ = await generate(engine, "Hello", GREEDY)
    assert text


async def test_a_stream_that_is_closed_is_over_at_the_server(engine: OpenAIEngine) -> None:
    endless = SamplingParameters(max_tokens=900, temperature=1.0, seed=1)
    stream = engine.generate("Count: 1, 2, 3,", endless)
    await anext(aiter(stream))
    await stream.aclose()  # type: ignore[attr-defined]
    # The server has one slot: this would wait for all of the 900 tokens.
    text, _ = await generate(engine, "Hello", replace(GREEDY, max_tokens=4))
    assert text


async def test_a_wrong_key_is_told_and_not_shown(
    empty_engine: OpenAIEngine, llama_cpp_server: LlamaCppServer
) -> None:
    engine = OpenAIEngine(replace(llama_cpp_server.settings, key="sk-wrong"))
    with pytest.raises(ModelLoadError, match="API key") as refused:
        await engine.load(Path(), "vouched-digest")
    assert not re.search("sk-", str(refused.value))
    await engine.close()

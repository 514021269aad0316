"""Streams share a context, take turns, and get a longer one where they need it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalpool_worker.engine.base import (
    FinishReason,
    GenerationEnd,
    SamplingParameters,
)
from evalpool_worker.engine.context import (
    ContextShape,
    DecodeContext,
    DecodeFailedError,
)
from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from evalpool_worker.engine.long_contexts import LongContexts
from evalpool_worker.engine.shape import EngineSettings
from tests.waiting import until
from tests.worker.engine.calls import (
    NO_MEMORY,
    SMALL,
    collect,
)


async def test_a_failed_step_ends_its_streams_and_the_engine_goes_on(
    llama: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = DecodeContext.decode
    failures = iter([False, False, True])

    def fail_third(context: DecodeContext) -> None:
        if next(failures, False):
            raise DecodeFailedError("llama.cpp could not compute a batch (code -3).")
        decode(context)

    monkeypatch.setattr(DecodeContext, "decode", fail_third)
    parameters = SamplingParameters(max_tokens=8, temperature=0.0)
    ends = []
    for _ in range(2):
        events = [event async for event in llama.generate("One, two,", parameters)]
        ends.append(events[-1])
    first, second = ends
    assert isinstance(first, GenerationEnd)
    assert isinstance(second, GenerationEnd)
    assert first.finish_reason is FinishReason.ERROR
    assert first.message == "llama.cpp could not compute a batch (code -3)."
    assert second.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)


async def test_streams_that_fill_the_cache_take_turns_and_all_finish(smollm2_path: Path) -> None:
    engine = LlamaCppEngine(
        EngineSettings(
            threads=1, generate_context_tokens=96, generate_chunk_tokens=32, generate_slots=4
        )
    )
    await engine.load(smollm2_path, "digest")
    grammar = 'root ::= ("la ")+ "."'
    parameters = SamplingParameters(max_tokens=91, temperature=0.0, grammar=grammar)
    # Each comes to fill the whole cache, though they begin side by side.
    streams = [collect(engine, "Sing: la la la", parameters) for _ in range(3)]
    for text, end in await asyncio.gather(*streams):
        assert end.finish_reason is FinishReason.LENGTH
        assert end.prompt_tokens + end.completion_tokens == 96
        assert re.fullmatch("(la )+(l|la)?", text)
    await engine.close()


async def test_streams_that_outgrow_the_usual_context_get_a_longer_one(smollm2_path: Path) -> None:
    engine = LlamaCppEngine(SMALL)
    await engine.load(smollm2_path, "digest")
    grammar = 'root ::= ("la ")+ "."'
    parameters = SamplingParameters(max_tokens=150, temperature=0.0, grammar=grammar)
    streams = [collect(engine, "Sing: la la la", parameters) for _ in range(2)]
    for text, end in await asyncio.gather(*streams):
        assert end.finish_reason is FinishReason.LENGTH
        assert end.completion_tokens == 150
        assert re.fullmatch("(la )+(l|la)?", text)
    await engine.close()


async def test_a_longer_context_goes_when_no_stream_is_left(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    make, free = LongContexts.make, LongContexts.free

    def noted_make(contexts: LongContexts, shape: ContextShape, *, wait: bool) -> DecodeContext:
        events.append("made")
        return make(contexts, shape, wait=wait)

    def noted_free(contexts: LongContexts, context: DecodeContext) -> None:
        events.append("freed")
        free(contexts, context)

    monkeypatch.setattr(LongContexts, "make", noted_make)
    monkeypatch.setattr(LongContexts, "free", noted_free)
    engine = LlamaCppEngine(SMALL)
    await engine.load(smollm2_path, "digest")
    parameters = SamplingParameters(max_tokens=2, temperature=0.0)
    for prompt in ("word " * 100, "One, two,", "word " * 200, "One, two,"):
        await collect(engine, prompt, parameters)
    assert events == ["made", "freed"] * 2
    await engine.close()


async def test_a_prompt_longer_than_the_usual_context_is_read_to_its_end(
    smollm2_path: Path,
) -> None:
    words = "The magic word is PINEAPPLE. Remember it well. " + "Then it rained all day. " * 30
    prompt = words + "\nThe magic word is"
    parameters = SamplingParameters(max_tokens=8, temperature=0.0)
    texts = []
    for settings in (SMALL, EngineSettings(threads=1)):
        engine = LlamaCppEngine(settings)
        await engine.load(smollm2_path, "digest")
        short, long = await asyncio.gather(
            collect(engine, "One, two, three,", parameters), collect(engine, prompt, parameters)
        )
        assert long[1].prompt_tokens > 64
        texts.append([short[0], long[0]])
        await engine.close()
    assert texts[0] == texts[1]


async def test_a_prompt_too_long_for_the_memory_fails_alone_and_can_be_tried_elsewhere(
    smollm2_path: Path,
) -> None:
    engine = LlamaCppEngine(SMALL, free_memory=lambda: 0)
    await engine.load(smollm2_path, "digest")
    parameters = SamplingParameters(max_tokens=8, temperature=0.0)
    (_, short), (text, long) = await asyncio.gather(
        collect(engine, "One, two, three,", parameters),
        collect(engine, "word " * 100, parameters),
    )
    assert short.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)
    assert text == ""
    assert long.finish_reason is FinishReason.ERROR
    assert re.match(NO_MEMORY, long.message)
    await engine.wait_idle()
    await engine.close()


async def test_a_stream_that_outgrows_the_memory_ends_and_the_others_go_on(
    smollm2_path: Path,
) -> None:
    engine = LlamaCppEngine(SMALL, free_memory=lambda: 0)
    await engine.load(smollm2_path, "digest")
    grammar = 'root ::= ("la ")+ "."'
    parameters = SamplingParameters(max_tokens=100, temperature=0.0, grammar=grammar)
    short = replace(parameters, max_tokens=40)
    (text, long), (_, end) = await asyncio.gather(
        collect(engine, "Sing: la la la", parameters), collect(engine, "Sing: la", short)
    )
    assert long.finish_reason is FinishReason.ERROR
    assert long.prompt_tokens + long.completion_tokens == 65
    assert text.startswith("la la")
    assert end.finish_reason is FinishReason.LENGTH
    await engine.close()


async def test_a_prompt_longer_than_a_batch_is_computed_in_chunks(smollm2_path: Path) -> None:
    text = "One two three four five six seven eight nine ten. " * 8
    parameters = SamplingParameters(max_tokens=8, temperature=0.0)
    texts = []
    for batch in (16, 256):
        engine = LlamaCppEngine(
            EngineSettings(generate_context_tokens=512, generate_chunk_tokens=batch)
        )
        await engine.load(smollm2_path, "digest")
        given, _ = await collect(engine, text, parameters)
        texts.append(given)
        await engine.close()
    assert texts[0] == texts[1]
    assert texts[0]


@pytest.mark.parametrize(("tokens", "most"), [(1, 64), (4, 32)], ids=["all new", "beside one"])
async def test_prompts_fill_a_batch_unless_a_stream_waits_for_its_next_token(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: int, most: int
) -> None:
    fill, decode = DecodeContext.fill, DecodeContext.decode
    batches: list[int] = []
    begun, all_wait = threading.Event(), threading.Event()

    def observed(context: DecodeContext, batch: Sequence[int], *columns: Any) -> None:
        batches.append(len(batch))
        fill(context, batch, *columns)

    def held(context: DecodeContext) -> None:
        begun.set()
        assert all_wait.wait(60)
        decode(context)

    monkeypatch.setattr(DecodeContext, "fill", observed)
    monkeypatch.setattr(DecodeContext, "decode", held)
    engine = LlamaCppEngine(EngineSettings(threads=1, generate_chunk_tokens=32))
    await engine.load(smollm2_path, "digest")
    first = SamplingParameters(max_tokens=tokens, temperature=0.0)
    others = SamplingParameters(max_tokens=1, temperature=0.0)
    async with asyncio.TaskGroup() as streams:
        streams.create_task(collect(engine, "Hello", first))
        await asyncio.to_thread(begun.wait)
        for name in "abc":
            streams.create_task(collect(engine, f"{name} " * 25, others))

        async def waiting() -> int:
            return engine.load_now.streams_waiting

        await until(waiting, lambda streams: streams == 3)
        all_wait.set()
    assert batches[1] == most
    await engine.close()


async def test_a_penalty_keeps_a_token_from_coming_again(llama: LlamaCppEngine) -> None:
    async def tokens(frequency_penalty: float) -> list[int]:
        parameters = SamplingParameters(
            max_tokens=24, temperature=0.0, frequency_penalty=frequency_penalty
        )
        events = [e async for e in llama.generate("la la la la la la la", parameters)][:-1]
        return [token for chunk in events for token in getattr(chunk, "token_ids", ())]

    free, penalised = await tokens(0.0), await tokens(100.0)
    assert len(set(free)) < len(free)
    assert len(set(penalised)) == len(penalised)

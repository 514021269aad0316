"""A stream whose grammar does not answer waits alone, and its text is what it would have been."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from evalpool_worker.engine import grammar_process, grammars
from evalpool_worker.engine.base import (
    FinishReason,
    GenerationChunk,
    GenerationEnd,
    SamplingParameters,
    TokenLogprobs,
)
from evalpool_worker.engine.context import DecodeContext
from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from evalpool_worker.engine.shape import EngineSettings
from tests.waiting import until
from tests.worker.engine.calls import collect

PROMPT = "Tell me a story about a fox."
# No words: what the model would write at first is forbidden, so the grammar is asked in every way.
CONSONANTS = SamplingParameters(
    max_tokens=24, temperature=0.8, seed=7, grammar="root ::= [b-df-hj-np-tv-xz]+", logprobs=1
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday Monday Tuesday Wednesday"
GIVEN = SamplingParameters(max_tokens=64, grammar=f'root ::= "{DAYS}"', logprobs=0)
PLAIN = SamplingParameters(max_tokens=24, temperature=0.0)
NOISE = 0.1


@dataclass
class Stream:
    """A generation that is read piece by piece."""

    events: AsyncIterator[GenerationChunk | GenerationEnd]
    text: str = ""
    places: list[TokenLogprobs] = field(default_factory=list)
    end: GenerationEnd | None = None

    async def read(self, tokens: int | None = None) -> None:
        """Read until there are so many tokens, or else to the end."""
        while self.end is None and (tokens is None or len(self.places) < tokens):
            event = await anext(self.events)
            if isinstance(event, GenerationEnd):
                self.end = event
            else:
                self.text += event.text
                self.places += event.logprobs

    async def close(self) -> None:
        await self.events.aclose()  # type: ignore[attr-defined]


def begin(engine: LlamaCppEngine, prompt: str, parameters: SamplingParameters) -> Stream:
    return Stream(aiter(engine.generate(prompt, parameters)))


@asynccontextmanager
async def held_up(
    engine: LlamaCppEngine, parameters: SamplingParameters = CONSONANTS
) -> AsyncIterator[tuple[Stream, psutil.Process]]:
    """A stream that has begun and asks its grammar, and what is to answer, which stands still."""

    async def asking() -> int:
        assert engine._running is not None
        return len(engine._running.generation._asking)

    before, asked = followers(), await asking()
    stream = begin(engine, PROMPT, parameters)
    await stream.read(1)
    [process] = followers() - before
    process.suspend()
    try:
        await until(asking, lambda streams: streams == asked + 1)
        yield stream, process
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def followers() -> set[psutil.Process]:
    """What follows grammars of this process's engines, each a child of a child."""
    own = psutil.Process()
    parents = {each for each in own.children() if grammar_process.__name__ in each.cmdline()}
    return {child for parent in parents for child in parent.children()}


async def test_the_others_go_on_to_their_end(llama: LlamaCppEngine) -> None:
    undisturbed = begin(llama, PROMPT, CONSONANTS)
    await undisturbed.read()
    async with held_up(llama) as (stream, process):
        _, end = await collect(llama, "Once upon a time", PLAIN)
        assert (end.finish_reason, end.completion_tokens) == (FinishReason.LENGTH, 24)
        assert llama.load_now.streams_running == 1
        process.resume()
        await stream.read()
    assert stream.end is not None
    assert stream.end.finish_reason is FinishReason.LENGTH
    assert stream.text == undisturbed.text
    for place, other in zip(stream.places, undisturbed.places, strict=True):
        assert place.chosen.token_id == other.chosen.token_id
        assert place.chosen.logprob == pytest.approx(other.chosen.logprob, abs=NOISE)


async def test_one_that_is_closed_meanwhile_frees_its_slot(llama: LlamaCppEngine) -> None:
    async with held_up(llama) as (stream, _):
        await stream.close()
        await llama.wait_idle()
        _, end = await collect(llama, "Once upon a time", PLAIN)
    assert end.finish_reason is FinishReason.LENGTH


async def test_one_whose_model_is_unloaded_meanwhile_is_cancelled(llama: LlamaCppEngine) -> None:
    async with held_up(llama) as (stream, _):
        await llama.unload()
        await stream.read()
    assert stream.end is not None
    assert stream.end.finish_reason is FinishReason.CANCELLED


async def test_a_grammar_that_never_answers_fails_as_the_machines_fault(
    llama: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with held_up(llama) as (stream, _):
        monkeypatch.setattr(grammars, "_WALL_SECONDS", 0.01)
        await stream.read()
    assert stream.end is not None
    assert (stream.end.finish_reason, stream.end.refused) == (FinishReason.ERROR, "")
    assert stream.end.message.startswith("The grammar was not followed within ")


async def test_one_that_waits_keeps_its_place_when_the_cache_is_full(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = DecodeContext.fill

    def never_nothing(context: DecodeContext, tokens: Sequence[int], *rest: Any) -> None:
        # Where there is nothing to compute, a token is, in the place of what is kept.
        assert tokens
        fill(context, tokens, *rest)

    monkeypatch.setattr(DecodeContext, "fill", never_nothing)
    engine = LlamaCppEngine(EngineSettings(threads=1, generate_context_tokens=96))
    await engine.load(smollm2_path, "digest")
    fills_it = SamplingParameters(
        max_tokens=86, temperature=0.0, grammar='root ::= ("la ")+ "."', logprobs=0
    )

    async def waiting() -> int:
        return engine.load_now.streams_waiting

    async with (
        held_up(engine, fills_it) as (large, its_grammar),
        held_up(engine, GIVEN) as (stream, process),
    ):
        its_grammar.resume()
        await until(waiting, lambda streams: streams == 1)
        process.resume()
        await stream.read()
        await large.read()
    assert stream.end is not None
    assert (stream.text, stream.end.finish_reason) == (DAYS, FinishReason.STOP)
    assert large.end is not None
    assert large.end.completion_tokens == len(large.places) == 86
    assert re.fullmatch("(la )+(l|la)?", large.text)
    await engine.close()
